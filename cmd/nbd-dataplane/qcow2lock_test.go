package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// lockCases are servers that hold images, and who comes besides.
var lockCases = []struct {
	holder string
	comers []string
}{
	{"-f qcow2 q.qcow2", []string{
		"nbd -f qcow2 q.qcow2", "nbd -r -f qcow2 q.qcow2", "nbd -f qcow2 -s q.qcow2", "nbd -f qcow2 -l one q.qcow2", "nbd -f raw q.qcow2", "nbd -r -f raw q.qcow2",
		"img info q.qcow2", "img info -U q.qcow2", "img check q.qcow2", "img check -U q.qcow2", "img snapshot -c x q.qcow2", "img map -U q.qcow2",
	}},
	{"-r -f qcow2 q.qcow2", []string{"nbd -f qcow2 q.qcow2", "nbd -r -f qcow2 q.qcow2", "nbd -f qcow2 -s q.qcow2", "img info q.qcow2", "img snapshot -c x q.qcow2"}},
	{"-s -f qcow2 q.qcow2", []string{"nbd -f qcow2 q.qcow2", "nbd -f qcow2 -s q.qcow2", "img info q.qcow2"}},
	{"-l one -f qcow2 q.qcow2", []string{"nbd -f qcow2 q.qcow2", "nbd -f qcow2 -l 2 q.qcow2"}},
	{"-f qcow2 top.qcow2", []string{
		"nbd -f qcow2 mid.qcow2", "nbd -r -f qcow2 mid.qcow2", "nbd -r -f raw base.img", "nbd -f qcow2 other.qcow2", "img info mid.qcow2",
		"img info --backing-chain top.qcow2", "img info -U --backing-chain top.qcow2", "img snapshot -c x mid.qcow2",
	}},
}

// Goal: qcow2 images and their backing files are locked as qemu-nbd locks them, and we see its locks: one writer, readers beside nobody who writes, backing files
// shared for reading. Method: whoever holds an image and whoever comes, QEMU's program or ours, what is said is the same.
func TestQcow2LocksAreQEMUs(t *testing.T) {
	ours, images := asProgram(t, qemuName), qcow2Dir(t)
	run(t, images, "/usr/bin/qemu-img", "create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "other.qcow2")
	for _, c := range lockCases {
		t.Run(c.holder, func(t *testing.T) {
			var want string
			for _, holder := range []string{stockQEMU, ours} {
				for _, comer := range []string{stockQEMU, ours} {
					got := lockOutcomes(t, copied(t, images), holder, comer, c.holder, c.comers)
					if want == "" {
						want = got
						t.Log(want)
					}
					require.Equal(t, want, got, "%s holds, %s comes", holder, comer)
				}
			}
		})
	}
}

// lockOutcomes is what comers meet while a server runs.
func lockOutcomes(t *testing.T, dir, holder, comer, line string, comers []string) string {
	t.Helper()
	background := []string{"--fork", "-t", "--pid-file", "DIR/pid", "-k", "DIR/s"}
	said := run(t, dir, holder, append(background, strings.Fields(line)...)...)
	require.Zero(t, said.Status, "%+v", said)
	var b strings.Builder
	for _, other := range comers {
		args := strings.Fields(other)
		if args[0] == "img" {
			got := run(t, dir, "/usr/bin/qemu-img", args[1:]...)
			fmt.Fprintf(&b, "%s: %d %s\n", other, got.Status, got.Stderr)
			continue
		}
		got := run(t, dir, comer, append([]string{"--fork", "-t", "--pid-file", "DIR/pid2", "-k", "DIR/s2"}, args[1:]...)...)
		if got.Status == 0 {
			require.NoError(t, insist(filepath.Join(dir, "pid2")))
		}
		// Who finds the conflict first, on opening or when the export is made, is left open.
		fmt.Fprintf(&b, "%s: %d %s\n", other, got.Status, strings.ReplaceAll(got.Stderr, "Failed to blk_new_open 'q.qcow2': ", ""))
	}
	require.NoError(t, insist(filepath.Join(dir, "pid")))
	return b.String()
}
