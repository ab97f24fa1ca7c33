package qcow2

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: an image is a correct disk, whatever options it was made with; method: the suite, on images of qemu-img in files, which
// qemu-img checks afterwards.
func TestConform(t *testing.T) {
	for _, c := range []struct {
		name, options string
		o             Options
	}{
		{"default", "", Options{}},
		{"v2", "compat=0.10", Options{Unmap: true}},
		{"small clusters", "cluster_size=512", Options{Unmap: true}},
		{"large clusters", "cluster_size=512k", Options{}},
		{"subclusters", "extended_l2=on,cluster_size=16k", Options{Unmap: true}},
		{"narrow refcounts", "refcount_bits=1,cluster_size=4k", Options{Unmap: true}},
		{"wide refcounts", "refcount_bits=64,cluster_size=1k", Options{Unmap: true}},
		{"lazy", "lazy_refcounts=on,cluster_size=4k", Options{Unmap: true}},
		{"preallocated", "preallocation=metadata,cluster_size=4k", Options{Unmap: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			template, err := os.ReadFile(create(t, filepath.Join(scratch(t), "template"), "1049600", c.options))
			require.NoError(t, err)
			blocktest.TestStack(t, func(t *testing.T) blocktest.Subject {
				path := filepath.Join(scratch(t), "image")
				require.NoError(t, os.WriteFile(path, template, 0o600))
				t.Cleanup(func() { checkImage(t, path) }) // after the disk is closed
				open := func() blockcore.Driver {
					f, err := raw.Open(raw.Options{Path: path, Discard: raw.DiscardUnmap})
					require.NoError(t, err)
					return f
				}
				return blocktest.Subject{Driver: open(), Reopen: open}
			}, func(t *testing.T, g *blockcore.Graph, bottom *blockcore.Node) *blockcore.Node {
				c.o.Warn = func(text string) { t.Log(text) }
				n, err := put(g, "image", bottom, c.o)
				require.NoError(t, err)
				return n
			})
		})
	}
}
