package interop_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
	"nbd-dataplane/interop/verifier"
)

const (
	// killsEnv is how often each server is killed. make soak sets 100.
	killsEnv     = "KILL_ROUNDS"
	killsDefault = 3

	killClients = 4
	killBytes   = 8 * mib
)

// Goal: a server that is killed under load leaves an image that has no errors, for QEMU and for us, and in which all is that a FLUSH has covered; each block has one of
// the versions that were written since. Method: kill -9, again and again, under clients that know what was acknowledged and read all
// of it when the server is back.
func TestKilledUnderLoad(t *testing.T) {
	kills := killsDefault
	if text := os.Getenv(killsEnv); text != "" {
		var err error
		kills, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	for _, c := range []struct {
		name, options string
		args          []string
	}{
		{"default", "cluster_size=64k", []string{"--aio=io_uring"}},
		{"small clusters", "cluster_size=512,refcount_bits=64", []string{"--aio=threads"}},
		{"lazy refcounts", "cluster_size=4k,lazy_refcounts=on", []string{"--aio=io_uring"}},
		{"subclusters", "cluster_size=64k,extended_l2=on", []string{"--aio=threads"}},
	} {
		t.Run(c.name, func(t *testing.T) { killOften(t, kills, c.options, c.args) })
	}
}

func killOften(t *testing.T, kills int, options string, args []string) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	image := filepath.Join(t.TempDir(), "disk.qcow2")
	command(t, []int{0}, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, strconv.Itoa(killBytes))
	o := subject.Options{File: image, Name: "disk", Args: append([]string{"-f", "qcow2"}, args...)}
	server := program.Start(t, o)
	o.Socket = server.Socket
	ended := make(chan error, killClients)
	var all []*verifier.Client
	for n := range killClients {
		v := verifier.New(verifier.Options{Socket: o.Socket, Export: "disk", Depth: 16, Index: n, Of: killClients,
			Blocks: killBytes / verifier.BlockBytes, Seed: seed, Crashes: true})
		all = append(all, v)
		go func() { ended <- v.Run() }()
	}
	for range kills {
		enough := answered(all) + int64(100+random.IntN(4000))
		awaitUnless(t, ended, func() bool { return answered(all) >= enough })
		server.Kill(t)
		checkKilled(t, image)
		require.NoError(t, os.RemoveAll(o.Socket))
		server = program.Start(t, o)
	}
	enough := answered(all) + 500
	awaitUnless(t, ended, func() bool { return answered(all) >= enough })
	for _, v := range all {
		v.Stop()
	}
	for range all {
		require.NoError(t, <-ended)
	}
	server.Stop(t)
	command(t, []int{0}, "qemu-img", "check", "-q", "-r", "leaks", image)
	command(t, []int{0}, "qemu-img", "check", "-q", image)
}

func answered(all []*verifier.Client) (n int64) {
	for _, v := range all {
		n += v.Done()
	}
	return n
}

// awaitUnless waits until a condition holds, or a client has ended, which is too early.
func awaitUnless(t *testing.T, ended chan error, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !holds() {
		select {
		case err := <-ended:
			require.NoError(t, err)
			require.FailNow(t, "a client has ended")
		case <-limit:
			require.FailNow(t, "the clients have come to a halt")
		case <-tick.C:
		}
	}
}

// checkKilled has QEMU and us look for errors; leaks are none. An image with lazy refcounts has some, and must be without after a repair, of a copy.
func checkKilled(t *testing.T, image string) {
	t.Helper()
	p, err := os.ReadFile(image)
	require.NoError(t, err)
	path := image
	const atIncompatible, leaks = 79, 3
	if dirty := p[atIncompatible]&1 != 0; dirty {
		path = filepath.Join(t.TempDir(), "copy")
		require.NoError(t, os.WriteFile(path, p, 0o600))
		command(t, []int{0}, "qemu-img", "check", "-q", "-f", "qcow2", "-r", "all", path)
	}
	command(t, []int{0, leaks}, "qemu-img", "check", "-f", "qcow2", path)
	if !program.Stock() {
		command(t, []int{0, leaks}, program.Path(), "image", "check", "-f", "qcow2", path)
	}
}

// command runs a program that has to end with one of these statuses.
func command(t *testing.T, statuses []int, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	out, _ := cmd.CombinedOutput()
	require.Contains(t, statuses, cmd.ProcessState.ExitCode(), "%s %q: %s", name, args, out)
}
