package nfstest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Ganesha is an nfs-ganesha of scripts/ganesha, which says what it needs and where its directory may lie. Its methods are
// for one goroutine at a time, and fail the test if the server does not do as it is told.
type Ganesha struct {
	// Immutable.
	t         testing.TB
	address   string
	directory string
	commands  io.WriteCloser
	answers   chan string // closed when the script ends
}

// StartGanesha exports a directory, usually one of t.TempDir, over NFSv3 until the test ends. Whoever is not uid 0 may do
// what the directory's modes let him.
func StartGanesha(t testing.TB, directory string) *Ganesha {
	t.Helper()
	directory, err := filepath.EvalSymlinks(directory)
	if err != nil {
		t.Fatal(err)
	}
	script := exec.Command(scriptPath(t), directory)
	script.Stderr = os.Stderr
	g := &Ganesha{t: t, directory: directory, answers: make(chan string, 8)}
	in, errIn := script.StdinPipe()
	out, errOut := script.StdoutPipe()
	if errIn != nil || errOut != nil {
		t.Fatal(errIn, errOut)
	}
	g.commands = in
	if err := script.Start(); err != nil {
		t.Fatalf("nfstest: %v", err)
	}
	t.Cleanup(func() { g.end(script) })
	go g.answerLoop(out)
	g.address = strings.TrimPrefix(g.expect("address "), "address ")
	g.expect("up")
	return g
}

func (g *Ganesha) answerLoop(out io.Reader) {
	defer close(g.answers)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		g.answers <- lines.Text()
	}
}

// end closes the script's standard input, at which it ends, and makes sure that it does.
func (g *Ganesha) end(script *exec.Cmd) {
	g.commands.Close()
	kill := time.AfterFunc(hangSeconds*time.Second, func() { _ = script.Process.Kill() })
	defer kill.Stop()
	for range g.answers {
		continue
	}
	_ = script.Wait()
}

func (g *Ganesha) expect(begin string) string {
	g.t.Helper()
	select {
	case line := <-g.answers:
		if strings.HasPrefix(line, begin) {
			return line
		}
		g.t.Fatalf("nfstest: scripts/ganesha says %q and not %q", line, begin)
	case <-time.After(hangSeconds * time.Second):
		g.t.Fatalf("nfstest: scripts/ganesha does not say %q", begin)
	}
	return ""
}

func (g *Ganesha) command(name, answer string) {
	g.t.Helper()
	if _, err := io.WriteString(g.commands, name+"\n"); err != nil {
		g.t.Fatalf("nfstest: scripts/ganesha: %v", err)
	}
	g.expect(answer)
}

// Kill ends the server with kill -9. What clients wrote is in the kernel's page cache, and stays.
func (g *Ganesha) Kill() {
	g.t.Helper()
	g.command("kill", "down")
}

// Restart kills the server if it runs, and starts it with the same address and ports, and another write verifier.
func (g *Ganesha) Restart() {
	g.t.Helper()
	g.command("start", "up")
}

// Address is where it listens: the port mapper at 111, NFS at 2049, MOUNT at 20048.
func (g *Ganesha) Address() string { return g.address }

// Path is a file of the exported directory on this machine.
func (g *Ganesha) Path(name string) string { return filepath.Join(g.directory, name) }

// StockURL is that of a file for QEMU and others that ask the port mapper.
func (g *Ganesha) StockURL(name string) string { return "nfs://" + g.address + g.Path(name) }

// URL is that of a file for clients that can be told the ports.
func (g *Ganesha) URL(name string) string { return g.StockURL(name) + "?nfsport=2049&mountport=20048" }

// scriptPath finds the script in the tree that the test runs in.
func scriptPath(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		script := filepath.Join(dir, "scripts", "ganesha")
		if _, missing := os.Stat(script); missing == nil {
			return script
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	t.Fatal("nfstest: scripts/ganesha is not in a directory above this one")
	return ""
}
