package nfs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
)

func noteDirectory(note string) string { return filepath.Dir(note) }

// dieWith ends a file as a process that is killed does: its locks stay at the server, and the kernel's on the note is gone.
func dieWith(f *File) {
	f.nlm.cancel()
	f.nlm.work.Wait()
	f.nlm.note.leave()
	f.nlm = nil
}

// Goal: what a process of this host has left at the server when it was killed is given back by the next one, and nothing else is: not what a living process has, nor another machine, nor
// one whose note is gone. Method: the notes of a dead file, changed in each way.
func TestNotesOfDeadOwners(t *testing.T) {
	change := func(with func(*note)) func(t *testing.T, name string) {
		return func(t *testing.T, name string) {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			var n note
			require.NoError(t, json.Unmarshal(text, &n))
			with(&n)
			text, err = json.Marshal(n)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, text, 0o600))
		}
	}
	_, machine := bootAndMachine()
	for _, c := range []struct {
		name   string
		before func(t *testing.T, name string) // nil = the process lives
		opens  bool
	}{
		{"alive", nil, false},
		{"dead", func(*testing.T, string) {}, true},
		{"of an earlier boot", change(func(n *note) { n.Boot = "another" }), machine != ""},
		{"of another machine", change(func(n *note) { n.Boot, n.Machine = "another", "another" }), false},
		{"of a machine without a name", change(func(n *note) { n.Boot, n.Machine = "", "" }), false},
		{"of another file", change(func(n *note) { n.Handle[0]++ }), false},
		{"gone", func(t *testing.T, name string) { require.NoError(t, os.Remove(name)) }, false},
		{"damaged", func(t *testing.T, name string) { require.NoError(t, os.WriteFile(name, []byte("{]"), 0o600)) }, false},
		{"not a file", func(t *testing.T, name string) {
			require.NoError(t, os.Remove(name))
			require.NoError(t, os.Mkdir(name, 0o700))
		}, false},
	} {
		for kind, manager := range managers {
			t.Run(c.name+", "+kind, func(t *testing.T) {
				s := lockedServer(t, manager)
				dir := filepath.Join(t.TempDir(), "notes", "here")
				noted := func(o *Options) { o.LockNotes = dir }
				f, err := tryOpen(t, s, noted)
				require.NoError(t, err)
				name := f.nlm.note.file.Name()
				if c.before != nil {
					dieWith(f)
					c.before(t, name)
				}
				next, err := tryOpen(t, s, noted)
				if !c.opens {
					require.True(t, isLocked(err), "%v", err)
					return
				}
				require.NoError(t, err)
				require.NoFileExists(t, name)
				require.Len(t, s.Locks(diskPath), 4)
				closeFile(t, next)
				left, err := os.ReadDir(dir)
				require.NoError(t, err)
				require.Empty(t, left)
			})
		}
	}
}

// Goal: a file is locked and opened where no note can be made, which is told. Method: a directory that is none.
func TestNotesCannotBeMade(t *testing.T) {
	s := lockedServer(t, nfstest.NamedLocks)
	var warnings []string
	_, err := tryOpen(t, s, func(o *Options) {
		o.LockNotes, o.Warn = "/dev/null/notes", func(w string) { warnings = append(warnings, w) }
	})
	require.NoError(t, err)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], "cannot be noted down")
	require.Len(t, s.Locks(diskPath), 4)
}
