package qcow2

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// alter changes what the image keeps, in a drained section.
func (r *rig) alter(change func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error) error {
	n := r.root.Node()
	d, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "test", Nodes: []*blockcore.Node{n}})
	if err != nil {
		return err
	}
	defer d.End()
	return r.graph.Update(context.Background(), "test", func(tx *blockcore.Tx) error { return change(tx, d, n) })
}

func (r *rig) createSnapshot(name string) error {
	return r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
		return tx.CreateSnapshot(d, n, blockcore.NewSnapshot{Name: name, Taken: time.Unix(1700000000, 5), Undone: func(err error) { r.t.Error(err) }})
	})
}

// snapshotID finds a snapshot by its name.
func (r *rig) snapshotID(name string) string {
	r.t.Helper()
	all, err := r.root.Node().Snapshots()
	require.NoError(r.t, err)
	k := slices.IndexFunc(all, func(s blockcore.Snapshot) bool { return s.Name == name })
	require.GreaterOrEqual(r.t, k, 0, name)
	return all[k].ID
}

func (r *rig) deleteSnapshot(name string) error {
	id := r.snapshotID(name)
	return r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
		return tx.DeleteSnapshot(d, n, id)
	})
}

func (r *rig) applySnapshot(name string) error {
	id := r.snapshotID(name)
	return r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
		return tx.ApplySnapshot(d, n, id)
	})
}

// states is what a disk held at its snapshots, by their names.
type states map[string][]byte

// shuffle creates, deletes and applies snapshots, beside the model.
func (s *storm) shuffle(t *testing.T, all states, k int, fixed bool) {
	t.Helper()
	names := slices.Sorted(maps.Keys(all))
	switch kind := s.random.IntN(5); {
	case kind < 2 || len(names) == 0:
		name := fmt.Sprintf("ours%d", k)
		require.NoError(t, s.rig.createSnapshot(name))
		all[name] = slices.Clone(s.model)
	case kind == 2:
		name := names[s.random.IntN(len(names))]
		require.NoError(t, s.rig.applySnapshot(name))
		s.model = slices.Clone(all[name])
		require.EqualValues(t, len(s.model), s.rig.image.Size())
	case kind == 3 || len(names) > 4:
		name := names[s.random.IntN(len(names))]
		require.NoError(t, s.rig.deleteSnapshot(name))
		delete(all, name)
	case !fixed:
		s.resize(t)
	}
}

// Goal: snapshots that are created, deleted and applied while the disk is used are what the disk was, to us and to QEMU, and leave no error and no leak. Method:
// random operations of both kinds on images of many formats, compared with a model; qemu-img looks at all snapshots, and makes some itself.
func TestSnapshotsWhileOpen(t *testing.T) {
	tiny, entry := int64(1024), int64(512)
	for n, c := range matrix {
		if strings.HasSuffix(c.options, "refcount_bits=1") {
			continue
		}
		t.Run(strings.ReplaceAll(c.options, ",", " "), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			t.Cleanup(func() { t.Logf("seed %d", seed) })
			random := rand.New(rand.NewPCG(seed, 0))
			path := filepath.Join(scratch(t), "image")
			const size = 2<<20 + 1024
			create(t, path, fmt.Sprint(size), c.options)
			disturb(t, random, path, size, 20, c.compressed)
			o := Options{Unmap: random.IntN(4) > 0, Overlap: OverlapCheck{Level: OverlapLevel(n % 3)}}
			if n%2 == 0 {
				o.Caches = CacheSizes{L2: &tiny, Refcount: &tiny, L2Entry: &entry}
			}
			all := states{}
			model := flat(t, path, "-f", "qcow2")
			old := strings.Contains(c.options, "0.10") // such an image does not keep the sizes of its snapshots
			for round := range 3 {
				name := fmt.Sprintf("theirs%d", round)
				tool(t, "qemu-img", "snapshot", "-c", name, path)
				all[name] = model
				r := newRig(t)
				r.use(r.add(path, o))
				s := &storm{rig: r, random: random, model: slices.Clone(model), unmap: o.Unmap}
				for k := range 12 {
					s.batch(t, 1+random.IntN(20))
					s.shuffle(t, all, 100*round+k, old)
				}
				model = s.model
				requireSame(t, model, r.contents(), "ours")
				r.close()
				checkImage(t, path)
				requireSame(t, model, flat(t, path, "-f", "qcow2"), "QEMU's")
				for name, want := range all {
					got := flat(t, path, "-f", "qcow2", "-l", "snapshot.name="+name)
					n := min(len(got), len(want)) // qemu-img takes the size of today
					requireSame(t, want[:n], got[:n], name)
				}
				require.Equal(t, len(all), strings.Count(tool(t, "qemu-img", "snapshot", "-l", path), "rs"), "in the names of all")
			}
		})
	}
}

// Goal: a snapshot that cannot be taken leaves the image as it was. Method: refcounts of one bit, which cannot become larger, after a part of the work was
// done; an external data file; a name that is too long for the table; and a change of the graph that fails behind the snapshot.
func TestSnapshotThatCannotBe(t *testing.T) {
	dir := scratch(t)
	for _, c := range []struct{ options, name, reason string }{
		{"refcount_bits=1", "s", "cannot become larger"},
		{"data_file=" + dir + "/data", "s", "operation not supported"},
		{"", strings.Repeat("n", 1<<16), "too big"},
	} {
		path := create(t, filepath.Join(dir, "image"), "1M", c.options)
		r := newRig(t)
		var more []blockcore.ChildOptions
		if strings.Contains(c.options, "data") {
			more = append(more, blockcore.ChildOptions{Role: blockcore.RoleData, Node: r.file(dir+"/data", false)})
		}
		r.use(r.add(path, Options{}, more...))
		r.write(0, []byte(strings.Repeat("x", 300<<10)))
		require.ErrorContains(t, r.createSnapshot(c.name), c.reason)
		r.write(64<<10, []byte(strings.Repeat("y", 300<<10)))
		err := r.alter(func(tx *blockcore.Tx, d *blockcore.Drained, n *blockcore.Node) error {
			if c.options == "" {
				require.NoError(t, tx.CreateSnapshot(d, n, blockcore.NewSnapshot{Name: "short", Taken: time.Now(), Undone: func(err error) { t.Error(err) }}))
			}
			return context.Canceled
		})
		require.ErrorIs(t, err, context.Canceled)
		all, err := r.root.Node().Snapshots()
		require.NoError(t, err)
		require.Empty(t, all)
		r.close()
		checkImage(t, path)
		require.Equal(t, "xy", string(flat(t, path, "-f", "qcow2")[64<<10-1:64<<10+1]))
		require.NoError(t, exec.Command("rm", path).Run())
	}
}
