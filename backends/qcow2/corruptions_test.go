package qcow2

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/qcowtest"
	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
)

// otherwise is what our driver does otherwise than QEMU about a corruption.
type otherwise struct {
	// commands are in the place of those of QEMU's tools, which we cannot run, or which say more.
	commands []string
	// messages are in the place of QEMU's; nil = the same.
	messages []string
	// fails is whether the commands fail; nil = as QEMU's.
	fails []bool
	why   string
}

func fatal(text string) string { return Corruption{Fatal: true, Text: text}.Message() }

var otherwises = map[int]otherwise{
	8: {commands: []string{"read 0 64k"}, fails: []bool{true},
		messages: []string{fatal("Preallocated zero cluster offset 0x52a00 unaligned (L2 offset: 0x40000, L2 index: 0)")}, why: "we do not amend images"},
	13: {messages: []string{fatal("Preventing invalid allocation of refcount block at offset 0")}, why: "a block goes into the first cluster that it counts"},
	14: {messages: []string{fatal("Preventing invalid allocation of refcount block at offset 0")}, why: "as 13"},
	21: {messages: []string{fatal("Refblock offset 0x2a00 unaligned (reftable index: 0)"),
		"qcow2_free_clusters failed: qcow2: Refblock offset 0x2a00 unaligned (reftable index: 0): input/output error"}, why: "two clusters are one run"},
	22: {commands: []string{"resize 32M"}, messages: uncovered("0xffffff00000000"), fails: []bool{false}, why: "blocks are looked at when the disk has its new length"},
	23: {commands: []string{"resize 32M"}, messages: uncovered("0x1000000000"), fails: []bool{false}, why: "as 22"},
	24: {commands: []string{"resize 32M"}, messages: []string{fatal("Refblock offset 0x200 unaligned (reftable index: 0x2)"),
		staying("Refblock offset 0x200 unaligned (reftable index: 0x2)")}, fails: []bool{false}, why: "as 22"},
}

// uncovered are the messages about a refcount block whose own refcount is nowhere.
func uncovered(offset string) []string {
	text := "Refblock at " + offset + " is not covered by the refcount structures"
	return []string{fatal(text), staying(text)}
}

// staying is what is said of space that a resize to less cannot give up.
func staying(why string) string {
	return "qcow2: refcount blocks that count nothing stay, and the file is not cut off: qcow2: " + why + ": input/output error"
}

// stockCommands are those of a trigger that qemu-io runs, and which of them have failed.
func stockCommands(c qcowtest.Corruption, r qcowtest.Reaction) (commands []string, fails []bool) {
	for k, word := range c.Trigger {
		if k > 0 && c.Trigger[k-1] == "-c" && !strings.HasPrefix(word, "open") && word != "close" {
			commands = append(commands, word)
		}
	}
	for _, line := range strings.Split(r.Trigger.Stdout, "\n") {
		if line != "" {
			fails = append(fails, strings.Contains(line, " failed: "))
		}
	}
	return commands, fails
}

// messagesOf are the lines in which QEMU tells of corruption.
func messagesOf(said string) []string {
	lines := []string{}
	for _, line := range strings.Split(said, "\n") {
		if strings.HasPrefix(line, "qcow2: ") || strings.HasPrefix(line, "qcow2_free_clusters") {
			lines = append(lines, line)
		}
	}
	return lines
}

// patient is an image that is known to be damaged.
type patient struct {
	*rig
	path string
	said []string
}

// admit opens an image, with what it stands on.
func admit(t *testing.T, path string, c qcowtest.Corruption, readOnly bool) (*patient, error) {
	t.Helper()
	p := &patient{rig: newRig(t), path: path, said: []string{}}
	o := Options{ReadOnly: readOnly, Unmap: true, Warn: func(text string) { p.said = append(p.said, text) }}
	if strings.Contains(strings.Join(c.Trigger, " "), "overlap-check=all") {
		o.Overlap.Level = OverlapAll
	}
	var children []blockcore.ChildOptions
	if c.Backing {
		children = append(children, blockcore.ChildOptions{Role: blockcore.RoleBacking, Node: p.add(filepath.Join(filepath.Dir(path), "base.qcow2"), Options{ReadOnly: true})})
	}
	f, err := raw.Open(raw.Options{Path: path, ReadOnly: readOnly})
	require.NoError(t, err)
	file, err := p.graph.AddNode(blockcore.NodeOptions{Name: "damaged", Context: p.ctx, Driver: f})
	require.NoError(t, err)
	n, err := put(p.graph, "patient", file, o, children...)
	if err != nil {
		require.NoError(t, p.graph.RemoveNodes())
		return nil, err
	}
	p.image = n.Driver().(*Image)
	p.root, err = p.graph.NewRoot(n, blockcore.RootOptions{Name: "owner", Writable: n.Writable(), Permissions: blockcore.PermRead})
	require.NoError(t, err)
	t.Cleanup(p.leave)
	return p, nil
}

// leave takes the graph down. An image that is not used any more cannot be flushed.
func (p *patient) leave() {
	if p.root == nil {
		return
	}
	p.root.Close()
	p.root = nil
	if err := p.graph.RemoveNodes(); p.image.broken {
		require.ErrorIs(p.t, err, syscall.ENOMEDIUM)
	} else {
		require.NoError(p.t, err)
	}
	_ = p.graph.RemoveNodes()
	require.Empty(p.t, p.graph.Nodes())
}

// command runs one like those of qemu-io.
func (p *patient) command(text string) error {
	words := strings.Fields(text)
	if words[0] == "resize" {
		return p.do(func(t *blockcore.Task, _ *blockcore.Edge) error { return p.image.Resize(t, bytesOf(words[1])) })
	}
	r := blockcore.Range{Offset: bytesOf(words[len(words)-2]), Length: bytesOf(words[len(words)-1])}
	return p.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		buf := t.Buffers().Get(int(r.Length))
		defer t.Buffers().Put(buf)
		switch words[0] {
		case "read":
			return e.Read(t, buf, r.Offset)
		case "discard":
			if err := e.Discard(t, r, false); err != nil {
				return err
			}
			_ = e.Flush(t) // ours gives clusters back then, QEMU's at once
			return nil
		}
		for k := range buf {
			buf[k] = 0xcd // as qemu-io
		}
		var flags blockcore.WriteFlags
		if words[1] == "-c" {
			flags = blockcore.WriteCompressed
		}
		return e.Write(t, buf, r.Offset, flags)
	})
}

func bytesOf(text string) int64 {
	unit := map[string]int64{"k": 1 << 10, "M": 1 << 20}[text[len(text)-1:]]
	n, err := strconv.ParseInt(strings.TrimRight(text, "kM"), 0, 64)
	if err != nil {
		panic(err)
	}
	return n * max(unit, 1)
}

// marked reports whether the image says of itself that it is corrupt.
func marked(t *testing.T, path string) bool {
	t.Helper()
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	return binary.BigEndian.Uint64(p[72:])&format.IncompatibleCorrupt != 0
}

// Goal: our driver does about each of the 26 corruptions what QEMU's does: the same command fails, the same is said, the image is marked when QEMU
// marks it, is not used any more then, cannot be opened for writing, and can be read where QEMU can read it; and nothing needs much memory. Method: the commands
// that run into the damage, by us and by qemu-io, on copies.
func TestCorruptionsGetTheirReactions(t *testing.T) {
	reactions, err := qcowtest.Reactions()
	require.NoError(t, err)
	for k, c := range qcowtest.Corruptions {
		if c.Number == 4 || c.Number == 17 || c.Number == 19 {
			continue // those have tests of their own
		}
		t.Run(c.String(), func(t *testing.T) { treat(t, c, reactions[k]) })
	}
}

func treat(t *testing.T, c qcowtest.Corruption, r qcowtest.Reaction) {
	path, stockPath := c.Make(t, t.TempDir()), c.Make(t, t.TempDir())
	commands, fails := stockCommands(c, r)
	messages := messagesOf(r.Trigger.Stderr)
	o, differs := otherwises[c.Number]
	if o.commands != nil {
		commands = o.commands
	}
	if o.messages != nil {
		messages = o.messages
	}
	if o.fails != nil {
		fails = o.fails
	}
	t.Logf("otherwise than QEMU: %v %s", differs, o.why)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p, err := admit(t, path, c, strings.Contains(strings.Join(c.Trigger, " "), "-r "))
	require.NoError(t, err)
	for n, text := range commands {
		err := p.command(text)
		require.Equal(t, fails[n], err != nil, "%s: %v", text, err)
		if err != nil {
			require.ErrorIs(t, err, syscall.EIO, text)
		}
	}
	require.Equal(t, messages, p.said)
	broken := strings.Contains(strings.Join(messages, "\n"), "Marking image")
	require.Equal(t, broken, p.image.broken)
	if broken {
		for _, text := range []string{"read 1M 512", "write 1M 512", "discard 1M 64k"} {
			require.ErrorIs(t, p.command(text), syscall.ENOMEDIUM, text)
		}
	}
	p.leave()
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20), "bytes of memory")
	require.Equal(t, broken, marked(t, path))
	if o.commands == nil {
		c.RunTrigger(t, stockPath)
		require.Equal(t, marked(t, stockPath), marked(t, path), "marked, by QEMU and by us")
	}
	if broken {
		_, err = admit(t, path, c, false)
		require.ErrorContains(t, err, "qcow2: Image is corrupt; cannot be opened read/write")
		require.ErrorIs(t, err, syscall.EACCES)
	}
	readAlike(t, path, c)
}

// readAlike compares what we and qemu-io can read of a damaged image, 64 KiB by 64 KiB.
func readAlike(t *testing.T, path string, c qcowtest.Corruption) {
	t.Helper()
	p, err := admit(t, path, c, true)
	require.NoError(t, err)
	defer p.leave()
	for at := 0; at < 256; at += 64 {
		text := fmt.Sprintf("read %dk 64k", at)
		ran := qcowtest.Stock(t, filepath.Dir(path), "qemu-io", "-r", "-f", "qcow2", "-c", text, path)
		require.Equal(t, ran.Status != 0, p.command(text) != nil, "%s: %s%s", text, ran.Stdout, ran.Stderr)
	}
}

// Goal: an image without a refcount table is not opened, nor one that has to be repaired first and cannot be; method: corruptions 17 and 19.
func TestCorruptionsThatAreNotOpened(t *testing.T) {
	for number, want := range map[int]string{17: "Image does not contain a reference count table", 19: "Image was not closed properly"} {
		c := qcowtest.Corruptions[number-1]
		path := c.Make(t, t.TempDir())
		before, err := os.ReadFile(path)
		require.NoError(t, err)
		_, err = admit(t, path, c, false)
		require.ErrorContains(t, err, want)
		after, err := os.ReadFile(path)
		require.NoError(t, err)
		requireSame(t, before, after, "the image")
	}
}

// slow is a disk whose reads wait.
type slow struct {
	*memory
	waiting int
	open    bool
	gate    blockcore.WaitQueue
}

// ReadAt waits until the gate is open.
func (s *slow) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	for !s.open {
		s.waiting++
		t.Wait(&s.gate)
	}
	return s.memory.ReadAt(t, p, off)
}

// Goal: a write whose copy is in flight when another one finds corruption fails with "No medium found" and writes nothing more; method: corruption 4, the backing
// image being slow.
func TestCorruptionWhileACopyIsInFlight(t *testing.T) {
	c := qcowtest.Corruptions[3]
	path := c.Make(t, t.TempDir())
	r := newRig(t)
	below := &slow{memory: newMemory(append([]byte{1}, make([]byte, 1<<20-1)...), &history{}, nil, nil)}
	backing, err := r.graph.AddNode(blockcore.NodeOptions{Name: "below", Context: r.ctx, Driver: below, ReadOnly: true})
	require.NoError(t, err)
	var said []string
	o := Options{Warn: func(text string) { said = append(said, text) }}
	r.use(r.add(path, o, blockcore.ChildOptions{Role: blockcore.RoleBacking, Node: backing}))
	p := &patient{rig: r, path: path}
	defer p.leave()
	first := make(chan error, 1)
	go func() { first <- p.command("write 0k 1k") }()
	require.Eventually(t, func() bool {
		waits := false
		_ = r.ctx.Do(func(*blockcore.Task) error { waits = below.waiting > 0; return nil })
		return waits
	}, time.Minute, time.Millisecond)
	require.ErrorIs(t, p.command("write 64k 64k"), syscall.EIO)
	require.NoError(t, r.ctx.Do(func(*blockcore.Task) error {
		below.open = true
		below.gate.WakeAll()
		return nil
	}))
	require.ErrorIs(t, <-first, syscall.ENOMEDIUM)
	require.Equal(t, []string{fatal("Preventing invalid write on metadata (overlaps with active L2 table)")}, said)
	require.True(t, marked(t, path))
}
