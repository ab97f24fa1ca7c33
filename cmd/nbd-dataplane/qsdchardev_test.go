package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/interop/subject"
)

// Goal: the old switches are written out as QEMU means them. Method: a table.
func TestLongForm(t *testing.T) {
	table := []struct {
		text, want string
		short      int
	}{
		{"", "", 0},
		{"socket", "socket", 0},
		{"socket,id=m,server,nowait", "socket,id=m,server=on,wait=off", 2},
		{"socket,id=m,path=a,,server,wait=off", "socket,id=m,path=a,,server,wait=off", 0},
		{"socket,id=m,delay,nodelay,noipv4", "socket,id=m,delay=on,nodelay=on,ipv4=off", 3},
		{"socket,no", "socket,=off", 1},
		{"socket,,x,server,", "socket,,x,server=on,", 1},
	}
	for _, row := range table {
		long, warnings := longForm(row.text)
		require.Equal(t, row.want, long)
		require.Len(t, warnings, row.short, row.text)
	}
}

// Goal: a monitor at a file greets, asks nothing and is no obstacle to an end. Method: both programs; the first line of the file is the
// greeting, and what was there before is gone unless it is to stay.
func TestMonitorAtAFile(t *testing.T) {
	for _, program := range []string{stockQSD, asProgram(t, qsdName)} {
		for _, appends := range []string{"", ",append=on"} {
			s := launch(t, program, "--chardev", "file,id=f,path=DIR/out"+appends, "--monitor", "f")
			path := filepath.Join(s.dir, "out")
			require.NoError(t, os.WriteFile(path, []byte("\n"), 0o600))
			s.conn, s.lines = s.connect()
			var text []byte
			require.Eventually(t, func() bool {
				text, _ = os.ReadFile(path)
				return len(text) > 1 && text[len(text)-1] == '\n'
			}, commandMax, 5*time.Millisecond)
			require.Equal(t, appends != "", text[0] == '\n', program)
			var greeting struct{ QMP map[string]any }
			require.NoError(t, json.Unmarshal(text, &greeting), program)
			require.Contains(t, greeting.QMP, "version")
			s.do("quit")
			require.Equal(t, ended, s.wait())
		}
	}
}

// Goal: a monitor at two pipes is one. Method: both programs, asked over pipes made before.
func TestMonitorAtPipes(t *testing.T) {
	for _, program := range []string{stockQSD, asProgram(t, qsdName)} {
		dir := t.TempDir()
		var ends [2]*os.File
		for n, name := range []string{"p.in", "p.out"} {
			require.NoError(t, unix.Mkfifo(filepath.Join(dir, name), 0o600))
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|unix.O_NONBLOCK, 0)
			require.NoError(t, err)
			defer f.Close()
			ends[n] = f
		}
		s := steer(t, program, "--chardev", "pipe,id=p,path="+filepath.Join(dir, "p"), "--monitor", "p")
		require.NoError(t, ends[1].SetReadDeadline(time.Now().Add(commandMax)))
		lines := bufio.NewReader(ends[1])
		greeting, err := lines.ReadString('\n')
		require.NoError(t, err, program)
		require.Contains(t, greeting, `"QMP"`)
		_, err = ends[0].WriteString("{'execute':'qmp_capabilities','id':'over pipes'}")
		require.NoError(t, err)
		answer, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Contains(t, answer, `"id": "over pipes"`)
		s.do("quit")
		require.Equal(t, ended, s.wait())
	}
}

// Goal: what there is not is refused with what to do instead. Method: the kinds of chardevs, and a word of the remedy.
func TestAbsentKindsNameTheRemedy(t *testing.T) {
	ours := asProgram(t, qsdName)
	for option, remedy := range map[string]string{
		"--chardev udp,id=m,port=5": "use socket", "--chardev ringbuf,id=m": "use socket",
	} {
		got := runQSD(t, ours, option)
		require.Equal(t, 1, got.Status)
		require.Contains(t, got.Stderr, remedy)
	}
}

// terminal is the other end of a pseudo-terminal that a monitor is at.
type terminal struct {
	t     *testing.T
	file  *os.File
	lines *bufio.Reader
}

func openTerminal(t *testing.T, path string) *terminal {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	require.NoError(t, f.SetDeadline(time.Now().Add(commandMax)))
	return &terminal{t, f, bufio.NewReader(f)}
}

// says requires that the next line has a text in it. Stock greets twice who comes as it starts.
func (at *terminal) says(text string) {
	at.t.Helper()
	line, err := at.lines.ReadString('\n')
	if text != greeting && strings.Contains(line, greeting) {
		line, err = at.lines.ReadString('\n')
	}
	require.NoError(at.t, err)
	require.Contains(at.t, line, text)
}

const greeting = `"QMP"`

// greets says whether a greeting comes.
func (at *terminal) greets() bool {
	require.NoError(at.t, at.file.SetReadDeadline(time.Now().Add(2*time.Second)))
	line, err := at.lines.ReadString('\n')
	require.NoError(at.t, at.file.SetReadDeadline(time.Now().Add(commandMax)))
	return err == nil && strings.Contains(line, greeting)
}

func (at *terminal) enter(text string) {
	_, err := at.file.WriteString(text)
	require.NoError(at.t, err)
}

// Goal: a monitor at a pseudo-terminal greets whoever opens it, one after the other, and is no obstacle to an end. Method: both programs (stock's
// writes its standard output to a terminal at once and to nothing else, so stdbuf); two clients, the second is asked to negotiate anew and ends the daemon.
func TestMonitorAtAPseudoTerminal(t *testing.T) {
	for _, program := range []string{stockQSD, asProgram(t, qsdName)} {
		cmd := exec.CommandContext(t.Context(), "stdbuf", "-oL", program, "--chardev", "pty,id=p", "--monitor", "p")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, subject.Start(cmd))
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		path, found := strings.CutPrefix(strings.TrimSuffix(line, " (label p)\n"), "char device redirected to ")
		require.True(t, found, line)
		first := openTerminal(t, path)
		first.says(greeting)
		first.enter("{'execute':'qmp_capabilities','id':1}{'execute':'query-version','id':2}\n")
		first.says(`"id": 1`)
		first.says(`"id": 2`)
		require.NoError(t, first.file.Close())
		last := openTerminal(t, path)
		for deadline := time.Now().Add(commandMax); !last.greets(); last = openTerminal(t, path) {
			require.True(t, time.Now().Before(deadline), program) // it has come before it was seen that the first one went
			require.NoError(t, last.file.Close())
		}
		last.enter("{'execute':'qmp_capabilities','id':3}\n")
		last.says(`"id": 3`)
		last.enter("{'execute':'quit','id':4}\n")
		if program != stockQSD { // which closes the terminal with its answer in it
			last.says(`"id": 4`)
		}
		require.NoError(t, cmd.Wait(), program)
	}
}
