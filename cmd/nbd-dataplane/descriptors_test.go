package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
	"nbd-dataplane/nbd"
)

// Goal: a server that is out of file descriptors lets clients wait, says so once, and has no one shake hands in vain; when descriptors
// get free those who waited are served. Method: more clients than the limit on descriptors allows, each of which opens the export and
// reads; when the log tells of the shortage the first ones go.
func TestOutOfDescriptors(t *testing.T) {
	dir := sameDir(t)
	socket := filepath.Join(dir, "s")
	command := fmt.Sprintf("ulimit -n 40; exec %s serve --log-format=json --print-uri -k %s d.img", asProgram(t, programName), socket)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	cmd.Dir = dir
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, subject.Start(cmd))
	_, err = bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)

	const clients = 60
	free, results := make(chan struct{}), make(chan error, clients)
	for range clients {
		go func() { results <- openAndWait(socket, free) }()
	}
	log := bufio.NewScanner(stderr)
	for log.Scan() && !strings.Contains(log.Text(), "too many open files") {
	}
	require.Contains(t, log.Text(), "accepting clients failed")
	close(free)
	for range clients {
		require.NoError(t, <-results)
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	rest := ""
	for log.Scan() {
		rest += log.Text() + "\n"
	}
	require.NotContains(t, rest, "did not open an export")
	require.NoError(t, cmd.Wait())
}

// openAndWait is a client that stays until it is told to go.
func openAndWait(socket string, free <-chan struct{}) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	client, err := nbd.NewClient(conn)
	if err != nil {
		return err
	}
	if _, err := client.Go(""); err != nil {
		return err
	}
	if _, err := conn.Write(readRequest(512)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 16+512)); err != nil {
		return err
	}
	<-free
	return nil
}
