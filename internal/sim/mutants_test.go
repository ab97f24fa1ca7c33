package sim

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var mutantsFlag = flag.Bool("sim.mutants", false, "break the block layer on purpose, one rule at a time: minutes")

// mutants are mistakes that the simulation has to find.
var mutants = []struct{ mistake, file, old, new, also string }{
	{"Root.Begin admits in a section", "root.go",
		"\tcase r.still:\n",
		"\tcase r.still && r.graph == nil:\n", ""},
	{"who waits longest is woken last", "waitqueue.go",
		"\tif q.last == nil {\n\t\tq.first = t\n\t} else {\n\t\tq.last.link = t\n\t}\n\tq.last = t\n\tt.suspend()",
		"\tt.link = q.first\n\tq.first = t\n\tif q.last == nil {\n\t\tq.last = t\n\t}\n\tt.suspend()", ""},
	{"a node whose edge moves to a quiesced child is resumed", "tx_edge.go",
		"\tif to.quiesce > 0 {\n\t\ttx.walk.quiesceParent(e)\n\t} else {",
		"\tif to.quiesce > 0 && e.parent == nil {\n\t\ttx.walk.quiesceParent(e)\n\t} else {", ""},
	{"and one whose edge moves to a child that is not quiesced stays quiesced", "tx_edge.go",
		"\t} else {\n\t\ttx.walk.resumeParent(e)\n\t}\n}\n\n// link",
		"\t}\n}\n\n// link", ""},
	{"a section does not ask loops that it has no news for", "drain.go",
		"r.telling.Load() != 0 || r.Busy() {\n\t\t\treturn true\n\t\t}\n\t}\n\tfor _, n := range nodes {\n\t\tif n.telling.Load() != 0 || ",
		"r.Busy() {\n\t\t\treturn true\n\t\t}\n\t}\n\tfor _, n := range nodes {\n\t\tif ", ""},
	{"counts are read children before parents", "drain.go",
		"\tfor _, r := range roots {\n\t\tif r.telling.Load() != 0 || r.Busy() {\n\t\t\treturn true\n\t\t}\n\t}\n\tfor _, n := range nodes {\n\t\tif n.telling.Load() != 0 || n.inFlight.Load() != 0 {\n\t\t\treturn true\n\t\t}\n\t}\n\treturn false",
		"\tfor _, n := range nodes {\n\t\tif n.telling.Load() != 0 || n.inFlight.Load() != 0 {\n\t\t\treturn true\n\t\t}\n\t}\n\tfor _, r := range roots {\n\t\tif r.telling.Load() != 0 || r.Busy() {\n\t\t\treturn true\n\t\t}\n\t}\n\treturn false", ""},
	{"a flush succeeds and does nothing", "edge.go",
		"since, 0, n.can.flusher.Flush(t))\n\tn.end",
		"since, 0, nil)\n\tn.end", ""},
	{"the last request of a node tells nobody", "node.go",
		"\tif left == 0 && n.still {\n\t\tn.graph",
		"\tif left == 0 && n.still && n.graph == nil {\n\t\tn.graph", ""},
	{"the last request of a Root tells nobody", "root.go",
		"\tif left == 0 && r.still {",
		"\tif left == 0 && r.still && r.graph == nil {", ""},
	{"read-modify-write shares its range", "write.go",
		"lock := n.writes.Acquire(t, r.Widen(n.align()), !aligned)",
		"lock := n.writes.Acquire(t, r.Widen(n.align()), aligned && false)", ""},
	{"FUA is lost on the way through a bounce buffer", "write.go",
		"\treturn n.can.writer.WriteAt(t, buf, wide.Offset, flags)",
		"\treturn n.can.writer.WriteAt(t, buf, wide.Offset, 0)", ""},
	{"who is covered is asked once", "drain.go",
		"\tif d.all {\n\t\tfor _, n := range d.graph.sorted() {\n\t\t\tclimb(n)",
		"\tif c, ok := stale.Load(d); ok {\n\t\treturn c.(covered).n, c.(covered).r\n\t}\n\tdefer func() { stale.Store(d, covered{nodes, roots}) }()\n\tif d.all {\n\t\tfor _, n := range d.graph.sorted() {\n\t\t\tclimb(n)", "\nvar stale sync.Map\ntype covered struct { n []*Node; r []*Root }\n"},
	{"a change that fails leaves an edge where it is not", "tx_edge.go",
		"\ttx.onUndo(func() { tx.point(e, from, at) })",
		"\t_, _ = from, at", ""},
	{"timers of a node run on in a section", "node.go",
		"\tn.chores.stop()\n",
		"", ""},
	{"and are armed in one", "chore.go",
		"\tif c.node.still {\n",
		"\tif c.node.still && d < 0 {\n", ""},
	{"work of a node's own is not counted while it runs", "errand.go",
		"\twork(t)\n\tk.task, t.node = nil, nil\n\tn.errands.remove(k)\n\tn.release()\n",
		"\tn.release()\n\twork(t)\n\tk.task, t.node = nil, nil\n\tn.errands.remove(k)\n", ""},
	{"a loop that changes the graph overtakes what it was told before", "quiesce.go",
		"if s.on == g.lent && !s.waits {",
		"if s.on == g.lent {", ""},
	{"a loop changes the graph with something in flight", "atonce.go",
		"\tcase a.refused != nil || a.section.busy():\n",
		"\tcase a.refused != nil:\n", ""},
	{"limits stay on in a section", "quiesce.go",
		"\t\t\tr.throttle.Suspend()\n",
		"\t\t\t_ = r\n", ""},
	{"held requests are let in and not counted", "root.go",
		"\t\tr.inFlight.Add(1)\n\t\tr.resuming++\n\t\tr.held.WakeOne()",
		"\t\tr.resuming++\n\t\tr.held.WakeOne()", ""},
	{"a node made in a drain of all is not quiesced", "tx_node.go",
		"\tif born := g.drainAll; born > 0 {",
		"\tif born := g.drainAll; born > 99 {", ""},
	{"a held request goes on at the old loop", "root.go",
		"\tif k.root == nil {\n\t\treturn false\n",
		"\tif k.root == nil {\n\t\treturn true\n", ""},
	{"Roots above a drained node go on", "quiesce.go",
		"\tfor _, e := range n.parents {\n\t\tw.quiesceParent(e)\n\t}",
		"\tfor _, e := range n.parents {\n\t\tif e.root == nil {\n\t\t\tw.quiesceParent(e)\n\t\t}\n\t}", ""},
	{"a Root is resumed before its node", "quiesce.go",
		"\tif r.quiesce == 0 {",
		"\tif r.quiesce >= 0 {", ""},
	{"callbacks fire on 1->2 and 2->1", "quiesce.go",
		"\tstill := n.quiesce > 0\n\tnews := still != n.told",
		"\tstill := n.quiesce > 0\n\tnews := still != n.told || n.quiesce == 1", ""},
	{"a change leaves permissions as they were", "update.go",
		"\tundo, err := g.permit()\n\tif err != nil {\n\t\treturn err\n\t}\n\ttx.undo = append(tx.undo, undo)\n",
		"", ""},
	{"writes take no lock where a range is held", "hold.go",
		"return n.holds == 0 && n.align() == 1", "return n.align() == 1", ""},
	{"who comes to hold a range passes the writes under way", "hold.go",
		"\tfor n.loose > 0 {\n\t\tt.Wait(&n.loosened)\n\t}\n", "", ""},
	{"a job goes on in a section", "job_run.go",
		"\treturn j.pauses > 0, nil\n", "\treturn false, nil\n", ""},
	{"only the last who waits is told", "bell.go",
		"\tif b.rung == nil {\n\t\tb.rung",
		"\tif b.rung == nil || true {\n\t\tb.rung", ""},
	{"a discard is marked in no bitmap", "edge.go",
		"\terr := n.discard(t, r)\n\tn.dirtied(r)\n",
		"\terr := n.discard(t, r)\n", ""},
	{"a write marks its beginning only", "edge.go",
		"n.write(t, p, off, flags))\n\tn.dirtied(r)",
		"n.write(t, p, off, flags))\n\tn.dirtied(Range{r.Offset, 1})", ""},
	{"bitmaps that are disabled go on", "bitmap.go",
		"\t\tif b.state.Enabled && !b.state.Inconsistent {",
		"\t\tif !b.state.Inconsistent {", ""},
	{"marks are gone when a node grows", "bitmap_set.go",
		"\tfor from := old.next(0, true); from < min(old.length, length); {",
		"\tfor from := old.next(0, true); from < min(old.length, length) && length < old.length; {", ""},
	{"a clear that is undone leaves nothing", "bitmap_change.go",
		"\t\tb.set.join(&before)\n\t\tbefore.drop()\n\t}\n\treturn undo, drop, nil",
		"\t\tbefore.drop()\n\t}\n\treturn undo, drop, nil", ""},
	{"a merge that is undone takes later writes with it", "bitmap_change.go",
		"\t\t\tb.set.join(since)\n",
		"", ""},
	{"a merge looks at the first run only", "bitmap_change.go",
		"\tfor from < b.set.length && n < len(runs) {",
		"\tfor from < b.set.length && n < 1 && at == 0 {", ""},
	{"a bitmap that could not be added stays", "tx_bitmap.go",
		"\ttx.Undo(b.Forget, nil)\n",
		"", ""},
	{"bitmaps on disk are trusted after a change of them", "tx_bitmap.go",
		"\treturn n.keeping(b, func(t *Task, k BitmapKeeper) error { return k.ChangeKept(t) })",
		"\treturn nil", ""},
	{"bitmaps on disk are trusted while they are in use", "../backends/qcow2/bitmap.go",
		"\t\tentries[k].Flags |= format.BitmapInUse\n",
		"\t\t_ = k\n", ""},
	{"a write of zeroes leaves bitmaps on disk trusted", "../backends/qcow2/zero.go",
		"\tif i.unmarked {",
		"\tif i.unmarked && i.g.ClusterBits == 0 {", ""},
	{"bitmaps that are stored are not in use again", "../backends/qcow2/open.go",
		" || len(i.bitmaps.entries) > 0 && !i.bitmaps.inUse)",
		")", ""},
	{"bitmaps that may be in use are not stored", "../backends/qcow2/bitmap_store.go",
		"b.inUse || b.mayBeInUse || ",
		"b.inUse || ", ""},
	{"a bitmap that is removed stays on disk", "../backends/qcow2/bitmap_store.go",
		"entries: slices.Delete(slices.Clone(b.entries), k, k+1)}",
		"entries: slices.Clone(b.entries)}", ""},
}

// Goal: the simulation would see if a rule of the block layer were broken. Method: each mutant replaces a piece of blockcore, or of a driver, by an overlay of the go
// command, and the seeds of the simulation must fail on it, by a check and not by a hang. Without -sim.mutants only the pieces are looked for.
func TestMutantsAreFound(t *testing.T) {
	for _, m := range mutants {
		file, err := filepath.Abs(filepath.Join("../../blockcore", m.file))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.old); n != 1 {
			t.Errorf("%s: what is to be replaced in %s is there %d times", m.mistake, m.file, n)
			continue
		}
		if *mutantsFlag {
			t.Run(m.mistake, func(t *testing.T) {
				mutated := strings.Replace(string(text), m.old, m.new, 1) + m.also
				if m.also != "" {
					mutated = strings.Replace(mutated, "import (", "import (\n\t\"sync\"", 1)
				}
				runMutant(t, file, mutated)
			})
		}
	}
}

// runMutant runs the seeds with another text of a file.
func runMutant(t *testing.T, file, text string) {
	dir := t.TempDir()
	mutant, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{file: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{mutant: text, overlay: string(list)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-count=1", "-timeout=2m", "-run", "TestSeeds", ".", "-sim.seeds=10000").CombinedOutput()
	_, found, _ := strings.Cut(string(out), ": seed ")
	if err == nil || found == "" {
		t.Fatalf("not found: %v\n%s", err, out)
	}
	line, _, _ := strings.Cut(found, "\n")
	t.Log("seed " + line)
}
