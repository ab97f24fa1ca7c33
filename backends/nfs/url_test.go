package nfs

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// Goal: URLs are read as documented, and what a file calls itself leads to it again. Method: a table, there and back.
func TestURLs(t *testing.T) {
	for _, c := range []struct {
		url     string
		want    Options
		ignored []string
		again   string // "" = url
	}{
		{url: "nfs://host/export/file", want: Options{Host: "host", Path: "/export/file"}},
		{url: "nfs://[::1]/e/f", want: Options{Host: "::1", Path: "/e/f"}},
		{url: "nfs://10.0.0.1:2050/e/f", want: Options{Host: "10.0.0.1", Path: "/e/f", NFSPort: 2050}, again: "nfs://10.0.0.1/e/f?nfsport=2050"},
		{url: "nfs://h/a%20b/c%3Fd", want: Options{Host: "h", Path: "/a b/c?d"}},
		{url: "nfs://h/e/f?uid=0&gid=7&nfsport=1&mountport=2&tcp-syncnt=3&connections=4&timeout=5",
			want: Options{Host: "h", Path: "/e/f", UID: ptr(uint32(0)), GID: ptr(uint32(7)), NFSPort: 1, MountPort: 2, SynCount: 3, Connections: 4, Timeout: 5 * time.Second}},
		{url: "nfs://h/e/f?readahead=4096&debug=0&pagecache=1", want: Options{Host: "h", Path: "/e/f"},
			ignored: []string{"pagecache", "readahead"}, again: "nfs://h/e/f"},
		{url: "nfs://h/e/f?readahead-size=0&page-cache-size=3", want: Options{Host: "h", Path: "/e/f"}, ignored: []string{"page-cache-size"}, again: "nfs://h/e/f"},
	} {
		o, ignored, err := ParseURL(c.url)
		require.NoError(t, err, c.url)
		require.NoError(t, o.check())
		require.Equal(t, c.want, o)
		require.Equal(t, c.ignored, ignored)
		if c.again == "" {
			c.again = c.url
		}
		require.Equal(t, c.again, o.URL())
		o, _, err = ParseURL(o.URL())
		require.NoError(t, err)
		require.Equal(t, c.want, o)
	}
	for _, url := range []string{
		"nfs://", "nfs:///e/f", "nfs://h", "nfs://h/", "nfs://h:0/e/f", "nfs://h:99999/e/f", "nfs://u@h/e/f", "nfs://h/e/f#x", "http://h/e/f",
		"nfs://h/e/f?x=1", "nfs://h/e/f?uid=-1", "nfs://h/e/f?uid=4294967296", "nfs://h/e/f?uid=1&uid=1", "nfs://h/e/f?nfsport=65536", "nfs://h/e/f?connections=17",
		"nfs://h/e/f?timeout=", "nfs://h/e/f?%", "nfs://h/%zz",
		"nfs://h/e/f?tcp-syncnt=2&tcp-syn-count=3", "nfs://h/e/f?readahead=1&readahead-size=2", "nfs://h:2049/e/f?nfsport=2050", "nfs://::1/e/f", "nfs://fe80::1/e/f",
	} {
		_, _, err := ParseURL(url)
		require.Error(t, err, url)
	}
	for _, o := range []Options{{}, {Host: "[::1]", Path: "/e/f"}, {Host: "h"}, {Host: "h", Path: "f"}, {Host: "h", Path: "/f/"}, {Host: "h", Path: "/f\x00"}, {Host: "h", Path: "/" + string(make([]byte, 2000))}} {
		require.Error(t, o.check())
	}
}

// Goal: a server is reached by name and by IPv6, its directory mounted at the place that it allows, and what is no disk is refused. Method: servers of each kind.
func TestOpening(t *testing.T) {
	six := nfstest.Start(t, nfstest.Options{Address: "::1"})
	six.Put(diskPath, nfstest.File{SizeBytes: 512})
	o := optionsOf(t, six, diskPath)
	o.Locking = imagelock.Off // this machine may have a port mapper at ::1
	f, err := Open(o)
	require.NoError(t, err)
	ctx := contextOf(t)
	require.NoError(t, ctx.Do(f.Close))

	s := nfstest.Start(t, nfstest.Options{})
	s.Put("/export/dir", nfstest.File{IsDir: true})
	s.Put("/export/dir/deeper", nfstest.File{IsDir: true})
	s.Put("/export/dir/deeper/caf\u00e9", nfstest.File{SizeBytes: 1000})
	o = optionsOf(t, s, "/export/dir/deeper/caf\u00e9")
	o.Host = "localhost"
	o.ReadOnly = true
	f, err = Open(o)
	require.NoError(t, err)
	require.Equal(t, int64(1024), f.Size())
	require.True(t, f.Features().ReadOnly)
	require.NoError(t, ctx.Do(f.Close))
	for path, want := range map[string]string{
		"/export/none": "NFS3ERR_NOENT", "/export/dir": "it is a directory", "/other/disk": "mount /other", "/export/dir/deeper/caf\u00e9/x": "look up x",
	} {
		_, err := Open(optionsOf(t, s, path))
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "nfs://127.0.0.1"+path[:4])
	}
}

// Goal: a disk that is opened for writing on an export for reading is told from one whose mode forbids it, by name and with what helps; so is a new one. Method: both, and that the file
// stays as it is.
func TestOpeningWhatMayNotBeWritten(t *testing.T) {
	s := nfstest.Start(t, nfstest.Options{Exports: []nfstest.Export{{Path: "/export"}, {Path: "/fixed", ReadOnly: true}}})
	s.Put("/fixed/disk", nfstest.File{SizeBytes: 1000})
	s.Put("/export/disk", nfstest.File{SizeBytes: 1000, Mode: 0o444})
	_, err := Open(optionsOf(t, s, "/fixed/disk"))
	require.ErrorIs(t, err, syscall.EROFS)
	require.ErrorContains(t, err, "read-only file system; open it read-only, or let the server export it for writing")
	_, err = Create(optionsOf(t, s, "/fixed/new"), 1000)
	require.ErrorIs(t, err, syscall.EROFS)
	require.ErrorContains(t, err, "or give another directory")
	o := optionsOf(t, s, "/export/disk")
	o.UID, o.GID = ptr(uint32(7)), ptr(uint32(7))
	_, err = Open(o)
	require.ErrorIs(t, err, syscall.EACCES)
	require.ErrorContains(t, err, "change its mode")
	o = optionsOf(t, s, "/fixed/disk")
	o.ReadOnly = true
	f, err := Open(o)
	require.NoError(t, err)
	require.Equal(t, int64(1024), f.Size())
	require.NoError(t, contextOf(t).Do(f.Close))
}

func contextOf(t *testing.T) *blockcore.AioContext {
	t.Helper()
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: t.Name()})
	require.NoError(t, err)
	t.Cleanup(ctx.Close)
	return ctx
}

// Goal: a number in a URL is the one that QEMU reads there: uid=010 is not user 10. Method: a table.
func TestNumbersInURLs(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "10": 10, "010": 8, "0x10": 16, "0XfF": 255, "00": 0, "4294967295": 1<<32 - 1} {
		o, _, err := ParseURL("nfs://server/export/file?uid=" + text)
		require.NoError(t, err, text)
		require.Equal(t, want, *o.UID, text)
	}
	for _, text := range []string{"", "08", "0x", "0b1", "0o7", "1_0", "-1", "1e1", "4294967296", "0x100000000"} {
		_, _, err := ParseURL("nfs://server/export/file?uid=" + text)
		require.Error(t, err, text)
	}
}
