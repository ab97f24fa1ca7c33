package main

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
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

// Goal: what there is not is refused with what to do instead. Method: the kinds of chardevs and objects, and a word of the remedy.
func TestAbsentKindsNameTheRemedy(t *testing.T) {
	ours := asProgram(t, qsdName)
	for option, remedy := range map[string]string{
		"--chardev pty,id=m": "use socket", "--chardev udp,id=m,port=5": "use socket", "--chardev serial,id=m,path=/dev/null": "use socket",
	} {
		got := runQSD(t, ours, option)
		require.Equal(t, 1, got.Status)
		require.Contains(t, got.Stderr, remedy)
	}
}
