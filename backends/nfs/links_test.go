package nfs

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
)

// Goal: symbolic links lead to the disk, as the last name and on the way, with ".." after a link meaning what the server means by it, and one that leads in circles, nowhere or out of the export is told. Method: a tree with links of each
// kind, and the contents that are read, also from a server that tells no attributes beside its answers.
func TestSymbolicLinks(t *testing.T) {
	for _, bare := range []bool{false, true} {
		r := newRig(t, nfstest.Options{NoAttributes: bare, Exports: []nfstest.Export{{Path: "/export"}, {Path: "/other"}}}, nil)
		r.close()
		for _, dir := range []string{"/export/a", "/export/a/deep", "/export/b"} {
			r.server.Put(dir, nfstest.File{IsDir: true})
		}
		r.server.Put("/export/a/deep/file", nfstest.File{Contents: []byte("contents")})
		r.server.Put("/export/a/above", nfstest.File{Contents: []byte("contents")})
		r.server.Put("/other/file", nfstest.File{Contents: []byte("elsewhere")})
		for name, target := range map[string]string{
			"/export/a/deep/beside": "file", "/export/relative": "a/deep/file", "/export/b/up": "../a//deep/./file",
			"/export/absolute": "/export/a/deep/file", "/export/chain": "b/up", "/export/dir": "a", "/export/b/dir": "/export/dir/deep",
			"/export/loop": "b/loop", "/export/b/loop": "../loop", "/export/dirloop": "dirloop/x", "/export/dangling": "a/none",
			"/export/out": "/etc/passwd", "/export/above": "../../../etc/passwd", "/export/other": "/other/file", "/export/todir": "a", "/export/root": "/",
			"/export/deep": "a/deep", "/export/through": "deep/../above", "/export/b/through": "/export/deep/../above", "/export/b/round": "/../other/../export/./deep//../above",
			"/export/a/deep/up": "../above", "/export/b/beside": "../../other/file", "/export/todots": "a/..",
		} {
			r.server.Put(name, nfstest.File{LinkTo: target})
		}
		for _, name := range []string{"a/deep/beside", "relative", "b/up", "absolute", "chain", "dir/deep/file", "dir/deep/beside", "b/dir/file", "b/dir/beside",
			"through", "b/through", "b/round", "deep/up", "dir/deep/up"} {
			f, err := Open(optionsOf(t, r.server, "/export/"+name))
			require.NoError(t, err, name)
			require.Contains(t, f.Path(), "/export/"+name, "it keeps its name")
			r.file = f
			r.check(0, append([]byte("contents"), make([]byte, 504)...))
			r.write(3, []byte("TEN"), 0)
			r.write(3, []byte("ten"), 0)
			require.NoError(t, r.flush())
			r.close()
			reader, err := NewReader(optionsOf(t, r.server, "/export/"+name))
			require.NoError(t, err)
			require.Equal(t, int64(len("contents")), reader.Size())
			reader.Close()
		}
		for name, want := range map[string]struct {
			errno error
			text  string
		}{
			"loop": {syscall.ELOOP, "10"}, "dirloop/file": {syscall.ELOOP, "dirloop"}, "dangling": {syscall.ENOENT, `/export/dangling is a symbolic link to "a/none"`},
			"out": {syscall.ENOENT, `/export/out is a symbolic link to "/etc/passwd"`}, "above": {syscall.ENOENT, "above is a symbolic link"},
			"other": {syscall.EXDEV, "out of the export"}, "b/beside": {syscall.EXDEV, "out of the export"},
			"todots": {syscall.EINVAL, "a directory"}, "todir": {syscall.EINVAL, "a directory"}, "root": {syscall.EISDIR, "/"},
		} {
			_, err := Open(optionsOf(t, r.server, "/export/"+name))
			require.ErrorIs(t, err, want.errno, name)
			require.ErrorContains(t, err, want.text, name)
		}
		made, err := Create(optionsOf(t, r.server, "/export/dir/new"), 4096)
		require.NoError(t, err)
		require.True(t, made)
		require.True(t, r.server.Exists("/export/a/new"))
		made, err = Create(optionsOf(t, r.server, "/export/absolute"), 4096)
		require.NoError(t, err)
		require.False(t, made)
	}
}
