package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/interop/subject"
)

// Goal: whoever does not read our standard error holds up neither clients nor monitors, however much there is to say of an image. Method: an image
// whose clusters are counted as free, each of which is complained about when it is discarded, under a daemon whose standard error is a pipe of one
// page that nobody reads.
func TestWarningsHoldNobodyUp(t *testing.T) {
	program := asProgram(t, programName)
	for _, door := range []struct {
		program string
		args    []string
	}{{program, []string{"daemon"}}, {asProgram(t, qsdName), nil}} {
		s := &steered{t: t, dir: sameDir(t)}
		const image = "qemu-img create -q -f qcow2 -o cluster_size=4k,lazy_refcounts=off c.qcow2 1M && qemu-io -f qcow2 -c 'write -q 0 1M' c.qcow2"
		out, err := s.tool("sh", "-c", image)
		require.NoError(t, err, out)
		path := filepath.Join(s.dir, "c.qcow2")
		p, err := os.ReadFile(path)
		require.NoError(t, err)
		block := blockOf(p)
		clear(p[block+2*16 : block+2*240])
		require.NoError(t, os.WriteFile(path, p, 0o600))

		in, said, err := os.Pipe()
		require.NoError(t, err)
		defer in.Close()
		_, err = unix.FcntlInt(said.Fd(), unix.F_SETPIPE_SZ, 4096)
		require.NoError(t, err)
		args := append(door.args, "--chardev", "socket,id=m,path="+s.dir+"/m,server=on,wait=on", "--monitor", "m")
		s.cmd = exec.CommandContext(t.Context(), door.program, args...)
		s.cmd.Dir, s.cmd.Stderr = s.dir, said
		require.NoError(t, subject.Start(s.cmd))
		said.Close()
		t.Cleanup(func() { s.cmd.Process.Kill() })
		s.conn, s.lines = s.connect()
		s.ok(`blockdev-add {"driver":"qcow2","node-name":"d","discard":"unmap","overlap-check":"none","file":{"driver":"file","filename":"DIR/c.qcow2"}}`,
			`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
			`block-export-add {"type":"nbd","id":"e","node-name":"d","name":"e","writable":true}`)
		args = []string{"-f", "raw"}
		for n := range 200 {
			args = append(args, "-c", fmt.Sprintf("discard %dk 4k", 4*(n+20)), "-c", "flush")
		}
		out, err = s.tool("qemu-io", append(args, "nbd+unix:///e?socket=DIR/s")...)
		require.NoError(t, err, out)
		require.Contains(t, s.do("query-block-exports"), `"id":"e"`)
		require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
		s.cmd.Wait()
	}
}
