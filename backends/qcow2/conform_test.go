package qcow2

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/backends/raw"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: an image is a correct disk, whatever options it was made with; method: the suite, on images of qemu-img in files, which
// are checked afterwards: each by us, and every eighth by qemu-img, whose start takes longer than all the rest.
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
			images := 0
			blocktest.TestStack(t, func(t *testing.T) blocktest.Subject {
				path := filepath.Join(scratch(t), "image")
				require.NoError(t, os.WriteFile(path, template, 0o600))
				images++
				judge := requireClean
				if images%8 == 1 {
					judge = checkImage
				}
				t.Cleanup(func() { judge(t, path) }) // after the disk is closed
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

// requireClean looks for errors and leaks.
func requireClean(t *testing.T, path string) {
	t.Helper()
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	s := &shot{p: p}
	report, err := s.check(offline.RepairNothing)
	require.NoError(t, err)
	require.True(t, report.Clean(), "%q", s.said)
}
