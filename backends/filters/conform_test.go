package filters

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/null"
	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: each filter over each kind of disk is a correct disk; method: the suite.
func TestFiltersConform(t *testing.T) {
	fake := func(o blocktest.FakeOptions) func(*testing.T) blocktest.Subject {
		return func(*testing.T) blocktest.Subject {
			f := blocktest.NewFake(o)
			return blocktest.Subject{Driver: f, Reopen: func() blockcore.Driver { return f.Reopen() }}
		}
	}
	for _, below := range []struct {
		name string
		open func(*testing.T) blocktest.Subject
	}{
		{"fake", fake(blocktest.FakeOptions{SizeBytes: 80<<10 + 77, Features: blockcore.Features{FastZero: true}})},
		{"fake pages", fake(blocktest.FakeOptions{SizeBytes: 96 << 10, Limits: blockcore.Limits{Align: 4096, TransferMax: 32 << 10}})},
		{"null", func(*testing.T) blocktest.Subject {
			return blocktest.Subject{Driver: null.Open(null.Options{SizeBytes: 64 << 10}), Forgets: true}
		}},
		{"raw", func(t *testing.T) blocktest.Subject {
			dir, err := os.MkdirTemp("/dev/shm", "filters-test") // a disk whose flushes cost nothing
			require.NoError(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			path := filepath.Join(dir, "disk")
			require.NoError(t, os.WriteFile(path, make([]byte, 64<<10), 0o600))
			open := func() blockcore.Driver {
				f, err := raw.Open(raw.Options{Path: path, Discard: raw.DiscardUnmap})
				require.NoError(t, err)
				return f
			}
			return blocktest.Subject{Driver: open(), Reopen: open}
		}},
	} {
		for _, kind := range kinds {
			t.Run(kind.name+" over "+below.name, func(t *testing.T) {
				blocktest.TestStack(t, below.open, func(t *testing.T, g *blockcore.Graph, bottom *blockcore.Node) *blockcore.Node {
					return put(t, g, kind.name, kind.make(t), bottom)
				})
			})
		}
	}
}

// Goal: a window, and copying from a backing disk, are correct disks too, and so are all filters on one another; method: the suite.
func TestStacksConform(t *testing.T) {
	for _, c := range []struct {
		name  string
		above func(t *testing.T, g *blockcore.Graph, n *blockcore.Node) *blockcore.Node
	}{
		{"window", func(t *testing.T, g *blockcore.Graph, n *blockcore.Node) *blockcore.Node {
			return put(t, g, "window", made[*Raw](t)(NewRaw(RawOptions{Offset: 777, SizeBytes: 64 << 10})), n)
		}},
		{"offset", func(t *testing.T, g *blockcore.Graph, n *blockcore.Node) *blockcore.Node {
			return put(t, g, "offset", made[*Raw](t)(NewRaw(RawOptions{Offset: 1111})), n)
		}},
		{"copy from a backing disk", func(t *testing.T, g *blockcore.Graph, n *blockcore.Node) *blockcore.Node {
			return put(t, g, "copy", NewCopyOnRead(), overlay(t, g, n, n.Size()+5000))
		}},
		{"all", func(t *testing.T, g *blockcore.Graph, n *blockcore.Node) *blockcore.Node {
			for _, kind := range kinds {
				n = put(t, g, kind.name, kind.make(t), n)
			}
			return n
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			blocktest.TestStack(t, func(*testing.T) blocktest.Subject {
				return blocktest.Subject{Driver: blocktest.NewFake(blocktest.FakeOptions{SizeBytes: 70 << 10})}
			}, c.above)
		})
	}
}

// overlay puts an empty fake on top of a node as its backing disk.
func overlay(t *testing.T, g *blockcore.Graph, below *blockcore.Node, sizeBytes int64) *blockcore.Node {
	t.Helper()
	return overlayOf(t, g, below, blocktest.FakeOptions{SizeBytes: sizeBytes})
}

func overlayOf(t *testing.T, g *blockcore.Graph, below *blockcore.Node, o blocktest.FakeOptions) *blockcore.Node {
	t.Helper()
	o.Name = "overlay"
	n, err := g.AddNode(blockcore.NodeOptions{
		Name: "overlay", Driver: blocktest.NewFake(o),
		Children: []blockcore.ChildOptions{{Role: blockcore.RoleBacking, Node: below}},
	})
	require.NoError(t, err)
	return n
}
