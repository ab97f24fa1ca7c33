package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// stockQEMU is the program we stand in for.
const stockQEMU = "/usr/bin/qemu-nbd"

// outcome is what a command line leads to.
type outcome struct {
	Status         int
	Stdout, Stderr string
}

// commandMax ends a command, or a wait for a condition, that should have ended by itself. A busy machine takes many times as long as an idle one.
const commandMax = time.Minute

// run runs a program in dir. "DIR" in arguments and in what comes out stands for that directory, which differs between the
// programs compared.
func run(t *testing.T, dir, program string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandMax)
	defer cancel()
	for n := range args {
		args[n] = strings.ReplaceAll(args[n], "DIR", dir)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Args[0] = filepath.Base(program) // messages begin with it
	// Files and not pipes: with -v a server in the background keeps them open.
	stdout, stderr := scratch(t), scratch(t)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, stdout, stderr
	err := subject.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	plain := strings.NewReplacer(dir, "DIR")
	return outcome{cmd.ProcessState.ExitCode(), plain.Replace(contents(t, stdout)), plain.Replace(contents(t, stderr))}
}

func scratch(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "output")
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func contents(t *testing.T, f *os.File) string {
	t.Helper()
	text, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	return string(text)
}

// sameDir makes a directory with the files that the command lines below name.
func sameDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	require.NoError(t, err)
	t.Cleanup(func() { cleanUp(dir) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "d.img"), make([]byte, 1<<20), 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "dir"), 0o700))
	return dir
}

// mistakes are command lines that end with an error of QEMU's.
var mistakes = []string{
	"", "d.img d.img", "-- d.img d.img",
	// Options as such.
	"--bogus", "--bogus=1", "-Z", "-Zr d.img", "-rZ", "--for", "--t d.img", "--s", "--port", "-p", "--fork=3 d.img", "-rp",
	// Values.
	"-o abc d.img", "-o 5000000 -f raw d.img", "--image-opts driver=raw,offset=5000000,file.driver=file,file.filename=d.img", "-o 2M d.img", "-o -5 -k DIR/s -f raw d.img", "-e x d.img", "-e -1 d.img", "-e 5x d.img", "-e 99999999999 d.img", "-e 2147483648 d.img",
	"-k rel d.img", "-k @abstract d.img", "--socket=rel d.img", "--so rel d.img",
	"--cache foo d.img", "--cache=none -n d.img", "-n -n d.img", "--cache=none --cache=none d.img", "--cac x d.img",
	"--aio foo d.img", "--aio native --aio native d.img", "--discard foo d.img", "--discard=on --discard=on d.img",
	"--detect-zeroes foo d.img", "--detect-zeroes unmap d.img", "--discard=off --detect-zeroes unmap d.img",
	// Combinations.
	"-L d.img", "-L --fork", "-L -x foo", "-L -o 5", "-L -A", "-L -f raw", "-L -n", "-L --aio threads", "-L -D text", "--list --discard=on",
	"--tls-creds x d.img", "--tls-authz x d.img", "--tls-authz x -L", "--tls-hostname h d.img", "--tls-creds a --tls-hostname b d.img",
	"--tls-creds a --tls-authz b -L", "--image-opts -f raw driver=raw,file.filename=d.img",
	"-k DIR/none/s --tls-creds x -f raw d.img",
	// Objects.
	"--object foo d.img", "--object foo,id=x d.img", "--object authz-simple,identity=x d.img", "--object authz-simple,id=x,identity=y,bogus=1 d.img",
	"--object tls-creds-x509,id=t d.img", "--object tls-creds-x509,id=t,dir=DIR/none,endpoint=server --tls-creds t -k DIR/s -f raw d.img",
	// Sockets.
	"-k DIR/none/s -f raw d.img", "-k DIR/none/s missing.img", "-b 192.0.2.1 -p 0 -f raw d.img", "-p -1 -f raw d.img", "-p abc -f raw d.img",
	"-k DIR/" + strings.Repeat("a", 120) + " d.img",
	"-L -k DIR/none/s", "-L -b 127.0.0.1 -p 1",
	// Images.
	"-k DIR/s missing.img", "-k DIR/s -f raw missing.img", "-k DIR/s dir", "-k DIR/s -f raw dir", "-k DIR/s -f foo d.img", "-k DIR/s --image-opts d.img",
	"-k DIR/s --aio=native -f raw d.img", "-k DIR/s foo:bar", "-k DIR/s -f raw foo://bar",
	"-k DIR/s --image-opts driver=foo,filename=d.img", "-k DIR/s --image-opts driver=raw,file.filename=missing.img", "-k DIR/s --image-opts driver=raw",
	"-k DIR/s --image-opts driver=raw,file.filename=d.img,bogus=1", "-k DIR/s --image-opts filename=d.img",
	"-k DIR/s --image-opts driver=raw,read-only,file.filename=d.img", "-k DIR/s --image-opts driver=raw,nofoo,file.filename=d.img",
	"-k DIR/s --image-opts read-only,driver=raw,file.filename=d.img",
	"-k DIR/s --image-opts driver=raw,file.filename=d.img,cache.direct=foo",
	`-k DIR/s json:[]`, `-k DIR/s json:{"driver":"foo"}`,
	"-k DIR/s -f raw -B x d.img", "-k DIR/s -f raw -r -B  x -A d.img", "-B", "-L -B x",
	"-k DIR/s --fork missing.img", "-k DIR/s --pid-file DIR/none/pid -f raw d.img", "-k DIR/s --pid-file DIR/none/pid -f raw --fork d.img",
}

// Goal: a wrong command line gets from us, as qemu-nbd, what it gets from qemu-nbd. Method: both programs run each in a
// directory alike; status, output and errors are compared.
func TestQEMUMistakes(t *testing.T) {
	ours := asProgram(t, qemuName)
	for _, line := range mistakes {
		t.Run(line, func(t *testing.T) {
			args := strings.Fields(line)
			want := run(t, sameDir(t), stockQEMU, strings.Fields(line)...)
			require.Equal(t, want, run(t, sameDir(t), ours, args...))
			require.Equal(t, 1, want.Status)
		})
	}
}

// Goal: a right command line leads to the same server as with qemu-nbd. Method: both are started in the background; what
// they say, what stock's list shows of them, and what is left when they have been stopped is compared.
func TestQEMUStarts(t *testing.T) {
	ours := asProgram(t, qemuName)
	for _, line := range []string{
		"-f raw d.img", "-r -f raw d.img", "-e 3 -f raw d.img", "--shared=0 -f raw d.img", "-x name -D text -f raw d.img", "-A -f raw d.img",
		"-o 0x1000 -f raw d.img", "-o 1048576 -f raw d.img", "--cache=off -f raw d.img", "--cache=writethrough -f raw d.img", "--aio=threads -f raw d.img",
		"--discard=unmap --detect-zeroes=unmap -f raw d.img", "--image-opts driver=raw,offset=4k,size=8k,file.filename=d.img",
		"-r --image-opts driver=raw,read-only,file.filename=d.img", "--image-opts driver=raw,noread-only,file.filename=d.img,file.read-only=off",
		"--image-opts driver=file,filename=d.img", `json:{"driver":"raw","file":{"driver":"file","filename":"d.img"}}`,
		"-f raw null-co://", "--image-opts driver=null-co,size=1M", "d.img", "-r d.img", "-v -f raw d.img", "-tf raw d.img", "d.img -fraw --read",
	} {
		t.Run(line, func(t *testing.T) {
			want := startAndStop(t, stockQEMU, line)
			require.Equal(t, want, startAndStop(t, ours, line))
		})
	}
}

// startAndStop returns what a server says, shows and leaves.
func startAndStop(t *testing.T, program, line string) []string {
	t.Helper()
	dir := sameDir(t)
	args := append([]string{"--fork", "-t", "--pid-file", "DIR/pid", "-k", "DIR/s"}, strings.Fields(line)...)
	said := run(t, dir, program, args...)
	shown := run(t, dir, stockQEMU, "-L", "-k", "DIR/s")
	require.NoError(t, terminate(filepath.Join(dir, "pid")), "%+v", said)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{fmt.Sprintf("%+v", said), fmt.Sprintf("%+v", shown)}
	for _, e := range left {
		names = append(names, e.Name())
	}
	return names
}

// Goal: a busy port is reported as qemu-nbd does. Method: the port is ours for the time of the test.
func TestQEMUBusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	require.NoError(t, err)
	defer l.Close()
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	want := run(t, sameDir(t), stockQEMU, "-f", "raw", "-p", port, "d.img")
	require.Equal(t, want, run(t, sameDir(t), asProgram(t, qemuName), "-f", "raw", "-p", port, "d.img"))
	require.Equal(t, "qemu-nbd: Failed to find an available port: Address already in use\n", want.Stderr)
}

// Goal: with a socket handed over, options about listening are refused as by qemu-nbd. Method: a shell hands over a
// listening socket as systemd does.
func TestQEMUActivation(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	handed, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer handed.Close()
	ours := asProgram(t, qemuName)
	for _, line := range []string{"-p 1 -f raw d.img", "-b ::1 -f raw d.img", "-k DIR/s -f raw d.img", "-b ::1 -p 1 -k DIR/s -f raw d.img", "missing.img"} {
		want := activate(t, handed, stockQEMU, line)
		require.Equal(t, want, activate(t, handed, ours, line), line)
		require.Equal(t, 1, want.Status, line)
	}
}

func activate(t *testing.T, socket *os.File, program, line string) outcome {
	t.Helper()
	dir := sameDir(t)
	script := `export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"`
	args := append([]string{"-c", script, "sh", program}, strings.Fields(strings.ReplaceAll(line, "DIR", dir))...)
	ctx, cancel := context.WithTimeout(t.Context(), commandMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr, cmd.ExtraFiles = dir, &stderr, []*os.File{socket}
	cmd.Run()
	return outcome{Status: cmd.ProcessState.ExitCode(), Stderr: strings.ReplaceAll(stderr.String(), dir, "DIR")}
}

// Goal: an image that the user may not open, or may only read, is refused as by qemu-nbd, and our own door says what to do; nothing is left behind. Method:
// files without the right, and programs without the capabilities that root has.
func TestNoPermission(t *testing.T) {
	for mode, lines := range map[os.FileMode][]string{
		0:     {"-f raw d.img", "-f raw -r d.img", "d.img"},
		0o400: {"-f raw d.img", "d.img"},
	} {
		for _, line := range lines {
			var got []outcome
			for _, program := range []string{stockQEMU, asProgram(t, qemuName)} {
				got = append(got, unprivileged(t, mode, program, append([]string{"-k", "DIR/s"}, strings.Fields(line)...)...))
			}
			require.Equal(t, got[0], got[1], "%v %s", mode, line)
			require.Contains(t, got[0].Stderr, "Permission denied")
		}
	}
	own := unprivileged(t, 0, asProgram(t, programName), "serve", "-f", "raw", "-k", "DIR/s", "d.img")
	require.Equal(t, 1, own.Status)
	require.Equal(t, "nbd-dataplane: open d.img: permission denied; change its mode, or open it read-only\n", own.Stderr)
}

// unprivileged runs a program as an ordinary user would, on an image with that mode.
func unprivileged(t *testing.T, mode os.FileMode, program string, args ...string) outcome {
	t.Helper()
	dir := sameDir(t)
	require.NoError(t, os.Chmod(filepath.Join(dir, "d.img"), mode))
	if os.Geteuid() == 0 {
		program, args = "/usr/bin/setpriv", append([]string{"--bounding-set=-all", program}, args...)
	}
	said := run(t, dir, program, args...)
	if !slices.Contains(args, stockQEMU) { // which leaves it
		require.NoFileExists(t, filepath.Join(dir, "s"))
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, "d.img"), 0o600))
	return said
}
