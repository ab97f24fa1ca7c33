package main

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/control"
)

// Goal: every place and export has the URI that NBD clients expect. Method: a table.
func TestURI(t *testing.T) {
	for _, row := range []struct {
		place  place
		export string
		isTLS  bool
		want   string
		qemu   string
	}{
		{place{network: "tcp", host: "127.0.0.1", port: "10809"}, "", false, "nbd://127.0.0.1:10809", "nbd:127.0.0.1:10809"},
		{place{network: "tcp", host: "::1", port: "1"}, "a/b c", true, "nbds://[::1]:1/a%2Fb%20c", "nbd:[::1]:1:exportname=a/b c"},
		{place{network: "unix", path: "/run/a b&c"}, "x", false, "nbd+unix:///x?socket=/run/a%20b%26c", "nbd:unix:/run/a b&c:exportname=x"},
		{place{network: "unix", path: "/s"}, "", true, "nbds+unix:///?socket=/s", "nbd:unix:/s"},
		{place{network: "unix", path: "@name"}, "", false, "nbd+unix:///?socket=%00name", `json:{"driver":"nbd","export":"","server":{"abstract":true,"path":"name","type":"unix"}}`},
		{place{network: "vsock", host: "3", port: "10809"}, "x", false, "nbd+vsock://3:10809/x", ""},
	} {
		require.Equal(t, row.want, row.place.uri(row.export, row.isTLS))
		require.Equal(t, row.qemu, row.place.qemuName(row.export))
	}
}

// Goal: what was printed as URI is understood as argument. Method: round trips.
func TestReadURI(t *testing.T) {
	o := defaultsOf(doorServe)
	require.NoError(t, o.readURI((&place{network: "tcp", host: "::1", port: "7"}).uri("x", false)))
	require.Equal(t, []string{"::1", "7"}, []string{o.bind, o.port})
	require.NoError(t, o.readURI((&place{network: "unix", path: "/a b"}).uri("x", false)))
	require.Equal(t, "/a b", o.socket)
	require.NoError(t, o.readURI((&place{network: "unix", path: "@n"}).uri("x", false)))
	require.Equal(t, "@n", o.socket)
	require.NoError(t, o.readURI((&place{network: "vsock", host: "2", port: "9"}).uri("x", false)))
	require.Equal(t, vsockAddress{set: true, cid: 2, port: 9}, o.vsock)
	for _, bad := range []string{"", "http://x", "nbd+smoke:///", "nbd+unix:///", "nbds://host", "nbd://host:99999", "%"} {
		require.Error(t, defaultsOf(doorServe).readURI(bad), bad)
	}
}

// Goal: a socket is removed only by its maker. Method: a successor's takes its place.
func TestSocketOfSuccessorStays(t *testing.T) {
	path := filepath.Join(sameDir(t), "s")
	first, err := listenUnix(path, false)
	require.NoError(t, err)
	_, err = listenUnix(path, false)
	require.ErrorContains(t, err, "Address already in use")
	second, err := listenUnix(path, true)
	require.NoError(t, err)
	first.close()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	conn.Close()
	second.close()
	require.NoFileExists(t, path)
}

// Goal: what a dead server left is replaced, and only if it is a socket. Method: a socket without a listener, and a file.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(sameDir(t), "s")
	require.NoError(t, leaveSocket(path))
	p, err := listenUnix(path, false)
	require.NoError(t, err)
	p.close()
	require.NoError(t, os.WriteFile(path, []byte("data"), 0o600))
	for _, takeOver := range []bool{false, true} {
		_, err = listenUnix(path, takeOver)
		require.ErrorContains(t, err, "a file that is no socket is in the way")
	}
	require.FileExists(t, path)
}

// Goal: a vsock listener is a listener like any other. Method: a connection through the loopback of vsock, or, where the
// kernel has none, an error that says so.
func TestVsock(t *testing.T) {
	t.Parallel() // a kernel without a loopback takes two seconds to say so

	a := vsockAddress{set: true, cid: vsockCIDAny, port: ^uint32(0)} // any free port
	p, err := listenVsock(a)
	if err != nil {
		require.ErrorContains(t, err, "--vsock")
		return
	}
	defer p.close()
	conn, err := dialVsock(vsockAddress{cid: 1, port: p.listener.(*vsockListener).addr.port})
	if err != nil {
		require.ErrorContains(t, err, "connect to vsock")
		return
	}
	defer conn.Close()
	accepted, err := p.listener.Accept()
	require.NoError(t, err)
	defer accepted.Close()
	_, err = conn.Write([]byte("x"))
	require.NoError(t, err)
	_, err = accepted.Read(make([]byte, 1))
	require.NoError(t, err)
	_, hasDescriptor := accepted.(syscall.Conn)
	require.True(t, hasDescriptor)
}

// Goal: a monitor that names a descriptor which is no listening socket takes nothing away from the process. Method: a pipe, which goes on.
func TestListenAtOurDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer w.Close()
	_, err = listenAddress(control.Address{Type: "fd", FD: strconv.Itoa(int(w.Fd()))})
	require.ErrorContains(t, err, "is not a socket")
	_, err = w.WriteString("x")
	require.NoError(t, err)
}
