package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// qsdMistakes are command lines that end with an error of qemu-storage-daemon's.
var qsdMistakes = []string{
	// Options as such.
	"--bogus", "--bogus=1", "-Z", "x", "--blockdev", "--export", "--object", "--chardev", "--monitor", "--nbd-server", "--pidfile", "--daemonize=1", "--block",
	// Nodes.
	"--blockdev null-co", "--blockdev=null-co", "--blockdev nosuch,node-name=x", "--blockdev driver=nosuch,node-name=x", "--blockdev node-name=x", "--blockdev null-co,node-name=1x",
	"--blockdev null-co,node-name=x,bogus=1", "--blockdev null-co,node-name=x,size=abc", "--blockdev null-co,node-name=x,size=1M", "--blockdev null-co,node-name=x,read-zeroes=maybe",
	"--blockdev null-co,node-name=x --blockdev null-co,node-name=x", "--blockdev file,node-name=x", "--blockdev file,node-name=x,filename=missing", "--blockdev file,node-name=x,filename=dir",
	"--blockdev null-co,node-name=" + long(32), "--blockdev null-co,node-name=x,discard=nosuch", "--blockdev null-co,node-name=x,cache.direct=maybe", "--blockdev null-co,node-name=x,cache=direct",
	"--blockdev null-co,node-name=x,cache.bogus=on", "--blockdev null-co,node-name=x,detect-zeroes=unmap", "--blockdev null-co,node-name=x,force-share=on", "--blockdev =x", "--blockdev null-co,,node-name=x", "--blockdev null-co,node-name", "--blockdev ,",
	"--blockdev file,node-name=x,filename=d.img,aio=nosuch", "--blockdev file,node-name=x,filename=d.img,aio=native", "--blockdev file,node-name=x,filename=d.img,locking=maybe",
	"--blockdev qcow2,node-name=x,file.driver=file,file.filename=d.img,overlap-check=much", "--blockdev qcow2,node-name=x,file.driver=file,file.filename=d.img,overlap-check=",
	`--blockdev {"driver":"qcow2","node-name":"x","file":{"driver":"file","filename":"d.img"},"overlap-check":"much"}`,
	`--blockdev {"driver":"nosuch","node-name":"x"}`, `--blockdev {"driver":"null-co"}`, `--blockdev {"driver":"null-co","node-name":"x","bogus":1}`, `--blockdev {"driver":`, `--blockdev {}`, `--blockdev {"driver":"null-co","node-name":"x","size":"1M"}`,
	`--blockdev []`, `--blockdev {"driver":"null-co","node-name":"x"}}`,
	// Objects.
	"--object nosuch,id=x", "--object iothread", "--object iothread,id=1x", "--object iothread,id=x,bogus=1", "--object iothread,id=x --object iothread,id=x", "--object iothread,id=x,poll-max-ns=-1",
	"--object iothread,id=x,poll-max-ns=abc", "--object id=x", "--object throttle-group,id=g,limits.bogus=1", "--object throttle-group,id=g,x-iops-total=abc", "--object throttle-group,id=g,limits.iops-total=1,limits.iops-read=1",
	"--object tls-creds-x509,id=t,dir=DIR/missing,endpoint=server", "--object tls-creds-x509,id=t", "--object authz-simple,id=x", "--object authz-list,id=x,rules.0.match=y", `--object {"qom-type":"iothread"}`,
	// The server.
	"--nbd-server", "--nbd-server addr.type=unix", "--nbd-server addr.type=nosuch", "--nbd-server addr.type=unix,addr.path=DIR/none/s", "--nbd-server addr.type=unix,addr.path=DIR/s,tls-creds=nosuch",
	"--nbd-server addr.type=unix,addr.path=DIR/s --nbd-server addr.type=unix,addr.path=DIR/s2", "--nbd-server addr.type=unix,addr.path=DIR/s,max-connections=x", "--nbd-server addr.type=inet,addr.host=127.0.0.1",
	"--nbd-server addr.type=inet,addr.host=127.0.0.1,addr.port=abc", "--nbd-server addr.type=inet,addr.host=192.0.2.1,addr.port=0", "--nbd-server bogus=1", "--nbd-server addr.type=unix,addr.path=DIR/s,bogus=1",
	"--nbd-server addr.type=unix,addr.path=" + long(120), "--nbd-server x", "--nbd-server addr=x", `--nbd-server {"addr":{"type":"unix"}}`, "--nbd-server addr.type=unix,addr.path=DIR/s --object iothread,id=1x",
	// Exports.
	"--export nbd,id=e", "--export nbd,id=e,node-name=nope", "--export nosuch,id=e,node-name=n", "--blockdev null-co,node-name=n --export nbd,id=e,node-name=n",
	"--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=1e,node-name=n", "--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,bogus=1",
	"--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n --export nbd,id=e,node-name=n", "--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n --export nbd,id=f,node-name=n",
	"--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,writable=maybe", "--blockdev null-co,node-name=n,read-only=on --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,writable=on",
	"--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,iothread=nope", "--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,bitmaps.0=b",
	"--nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n --blockdev null-co,node-name=n", "--export node-name=n", "--export nbd,node-name=n",
	// Monitors and where they come in.
	"--monitor nope", "--monitor chardev=nope", "--monitor mode=control", "--monitor m --chardev socket,id=m,path=DIR/m,server=on,wait=off", "--chardev socket,path=DIR/m,server=on,wait=off", "--chardev nosuch,id=m", "--chardev id=m",
	"--chardev socket,id=m,path=DIR/none/m,server=on,wait=off", "--chardev socket,id=m,path=DIR/m,server=on,wait=off --chardev socket,id=m,path=DIR/m2,server=on,wait=off",
	"--chardev socket,id=m,path=DIR/m,server=on,wait=off --monitor m --monitor m", "--chardev socket,id=m,path=DIR/m,server=on,wait=off --monitor m,mode=readline", "--chardev socket,id=m,path=DIR/m,server=on,wait=off --monitor m,bogus=1",
	"--chardev socket,id=m,path=DIR/m,server=on,wait=off --monitor m,mode=nosuch", "--chardev socket,id=m,path=DIR/m,server=on,wait=off,bogus=1", "--chardev socket,id=m,path=DIR/m,server=maybe", "--chardev socket,id=1m,path=DIR/m,server=on,wait=off", "--chardev stdio,id=m,bogus=1",
	"--chardev socket,id=m,path=DIR/m", "--chardev socket,id=m,host=127.0.0.1,server=on,wait=off", "--chardev socket,id=m,path=DIR/m,wait=off", "--chardev socket,id=m,path=DIR/m,server=on,wait=off --monitor m,pretty=maybe",
	"--chardev socket,id=m,path=DIR/m,noserver", "--chardev socket,id=m,path=DIR/m,server,nobogus", "--chardev socket,id=m,path=DIR/m,bogus", "--chardev socket,id=m,path=DIR/m,noserver,nowait",
	"--chardev file,id=m", "--chardev file,id=m,path=DIR/none/x", "--chardev file,id=m,path=DIR/none/x,append", "--chardev file,id=m,path=DIR/none/x,bogus=1", "--chardev file,id=m,path=DIR/none/x,append=maybe",
	"--chardev file,id=m,path=DIR/dir", "--chardev pipe,id=m", "--chardev pipe,id=m,path=DIR/missing", "--chardev pipe,id=m,bogus", "--chardev vc,id=m",
	"--chardev stdio,id=m --chardev stdio,id=n", "--chardev serial,id=m", "--chardev tty,id=m", "--chardev serial,id=m,path=DIR/none", "--chardev serial,id=m,path=/dev/null --chardev serial,id=m,path=/dev/null",
	"--blockdev help", "--export ?", "--export help,id=x", "--nbd-server help", "--monitor ?",
	// The process.
	"--pidfile DIR/none/pid", "--daemonize --bogus", "--daemonize --blockdev null-co", "--daemonize --pidfile DIR/none/pid", "--pidfile DIR/pid --blockdev null-co", "--daemonize --export nbd,id=e,node-name=nope --blockdev null-co",
}

// runQSD runs a storage daemon that should end by itself.
func runQSD(t *testing.T, program, line string) outcome {
	t.Helper()
	dir := sameDir(t)
	result := run(t, dir, program, strings.Fields(line)...)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	if program != stockQSD { // which leaves its sockets
		require.Len(t, left, 2)
	}
	return result
}

// Goal: a wrong command line gets from us, as qemu-storage-daemon, what it gets from that. Method: both programs run each in a directory
// alike; status, output, errors and the files left are compared.
func TestQSDMistakes(t *testing.T) {
	ours := asProgram(t, qsdName)
	for _, line := range qsdMistakes {
		t.Run(line, func(t *testing.T) {
			want := runQSD(t, stockQSD, line)
			require.Equal(t, want, runQSD(t, ours, line))
			require.Equal(t, 1, want.Status)
		})
	}
}

// qsdStarts are command lines that serve something on DIR/s.
var qsdStarts = []string{
	"--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n",
	"--blockdev null-co,node-name=n,size=1048576 --nbd-server addr.type=unix,addr.path=DIR/s --export type=nbd,id=e,node-name=n,name=x,writable=on,description=text",
	"--blockdev driver=file,node-name=n,filename=d.img --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,writable=on",
	"--blockdev file,node-name=n,filename=d.img,read-only=on --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n",
	"--blockdev file,node-name=n,filename=d.img,auto-read-only=on,cache.direct=off,cache.no-flush=on,discard=unmap,detect-zeroes=unmap,locking=off,aio=threads --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,writable=on",
	"--object iothread,id=t --blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,iothread=t",
	"--object iothread,id=t,poll-max-ns=0 --blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,iothread=t,fixed-iothread=on",
	"--nbd-server addr.type=unix,addr.path=DIR/s,max-connections=1 --blockdev null-co,node-name=n --export nbd,id=e,node-name=n,writable=on",
	"--nbd-server addr.type=unix,addr.path=DIR/s,max-connections=0 --blockdev null-co,node-name=n --export nbd,id=e,node-name=n,writable=on",
	"--nbd-server addr.type=unix,addr.path=DIR/s",
	"--nbd-server addr.type=unix,addr.path=DIR/s --blockdev null-co,node-name=n --blockdev null-co,node-name=m --export nbd,id=e,node-name=n --export nbd,id=f,node-name=m,allocation-depth=on --export nbd,id=g,node-name=n,name=",
	`--blockdev {"driver":"null-co","node-name":"n","read-zeroes":true} --nbd-server {"addr":{"type":"unix","path":"DIR/s"}} --export {"type":"nbd","id":"e","node-name":"n"}`,
	`--blockdev {"driver":"file","node-name":"n","filename":"d.img","cache":{"direct":false}} --nbd-server {"addr":{"type":"unix","path":"DIR/s"},"max-connections":2} --export {"type":"nbd","id":"e","node-name":"n","writable":true}`,
	`--object {"qom-type":"iothread","id":"t"} --blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n,iothread=t`,
	"--object throttle-group,id=g,limits.iops-total=1000 --blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n",
	"--object throttle-group,id=g,x-iops-total=1000 --blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n",
	"--object authz-simple,id=a,identity=me --blockdev=null-co,node-name=n --nbd-server=addr.type=unix,addr.path=DIR/s --export=nbd,id=e,node-name=n",
	"--chardev socket,id=m,path=DIR/m,server=on,wait=off --monitor m --blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=DIR/s --export nbd,id=e,node-name=n",
	"--chardev socket,id=m,path=DIR/m,server=on,wait=off --monitor chardev=m,mode=control,pretty=on --nbd-server addr.type=unix,addr.path=DIR/s",
	"--chardev socket,id=m,path=DIR/m,server,nowait --monitor m --nbd-server addr.type=unix,addr.path=DIR/s",
	"--chardev socket,id=m,path=DIR/m,server=on,nowait,nodelay --monitor m --nbd-server addr.type=unix,addr.path=DIR/s",
	"--chardev socket,id=m,host=127.0.0.1,port=0,server,nowait,delay,noipv6 --nbd-server addr.type=unix,addr.path=DIR/s",
	"--chardev null,id=m,nosignal --monitor m --nbd-server addr.type=unix,addr.path=DIR/s",
	"--chardev serial,id=m,path=/dev/null --monitor m --nbd-server addr.type=unix,addr.path=DIR/s",
	"--chardev tty,id=m,path=/dev/null --nbd-server addr.type=unix,addr.path=DIR/s",
	"--chardev file,id=m,path=DIR/out --monitor m --nbd-server addr.type=unix,addr.path=DIR/s",
	"--block null-co,node-name=n,force-share=on,read-only=on --nbd addr.type=unix,addr.path=DIR/s --exp nbd,id=e,node-name=n",
	"--chardev null,id=m --monitor m --nbd-server addr.type=unix,addr.path=DIR/s",
}

// Goal: a right command line leads to the same server as with qemu-storage-daemon. Method: both are started in the background; what they
// say, what stock's list shows of them, and what is left when they have been stopped is compared.
func TestQSDStarts(t *testing.T) {
	ours := asProgram(t, qsdName)
	for _, line := range qsdStarts {
		t.Run(line, func(t *testing.T) {
			want := startAndStopQSD(t, stockQSD, line)
			require.Equal(t, want, startAndStopQSD(t, ours, line))
			require.Contains(t, want[1], "Status:0")
		})
	}
}

// insist is terminate, for programs that lose a signal now and then: qemu-storage-daemon does. They must not mind another one.
func insist(pidFile string) error {
	ended := make(chan error, 1)
	go func() { ended <- terminate(pidFile) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Second):
			go func() { _ = terminate(pidFile) }()
		}
	}
}

func startAndStopQSD(t *testing.T, program, line string) []string {
	t.Helper()
	dir := sameDir(t)
	said := run(t, dir, program, append([]string{"--daemonize", "--pidfile", "DIR/pid"}, strings.Fields(line)...)...)
	shown := run(t, dir, stockQEMU, "-L", "-k", "DIR/s")
	require.NoError(t, insist(filepath.Join(dir, "pid")), "%+v", said)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{fmt.Sprintf("%+v", said), fmt.Sprintf("%+v", shown)}
	for _, e := range left {
		if e.Name() != "s" || program != stockQSD { // which leaves the socket of its NBD server
			names = append(names, e.Name())
		}
	}
	return names
}

// Goal: the daemon is asked to end in the ways of qemu-storage-daemon and ends as it does. Method: each signal, and the command; status and
// errors are compared, and the pid file is gone.
func TestQSDEnds(t *testing.T) {
	args := []string{"--pidfile", "DIR/pid", "--blockdev", "null-co,node-name=n", "--nbd-server", "addr.type=unix,addr.path=DIR/s", "--export", "nbd,id=e,node-name=n"}
	for _, program := range []string{stockQSD, asProgram(t, qsdName)} {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
			s := steer(t, program, slices.Clone(args)...)
			s.do("query-version") // the signal does not come before its time
			require.FileExists(t, filepath.Join(s.dir, "pid"))
			require.Equal(t, ended, s.end(signal), "%s %s", program, signal)
			require.NoFileExists(t, filepath.Join(s.dir, "pid"))
		}
		s := steer(t, program, slices.Clone(args)...)
		require.Equal(t, "{}", s.do("quit"))
		require.Equal(t, ended, s.wait())
		require.NoFileExists(t, filepath.Join(s.dir, "pid"))
	}
}

// Goal: no monitor finds half of what the command line asks for. Method: a daemon waits for the client of a second monitor with its disk and
// its pid file still to come; what the first monitor was asked in that time is answered with both there.
func TestQSDMonitorsComeLast(t *testing.T) {
	for _, program := range []string{stockQSD, asProgram(t, qsdName)} {
		s := launch(t, program, "--chardev", "socket,id=w,path=DIR/w,server=on,wait=on", "--monitor", "w", "--blockdev", "null-co,node-name=n", "--pidfile", "DIR/pid")
		conn, lines := s.dial("m")
		_, err := conn.Write([]byte("{'execute':'qmp_capabilities'}\n{'execute':'query-named-block-nodes','id':'q'}\n"))
		require.NoError(t, err)
		s.dial("w")
		for answer := ""; !strings.Contains(answer, `"id": "q"`); {
			answer, err = lines.ReadString('\n')
			require.NoError(t, err)
			if strings.Contains(answer, `"id": "q"`) {
				require.Contains(t, answer, `"node-name": "n"`)
			}
		}
		require.FileExists(t, filepath.Join(s.dir, "pid"))
	}
}

// Goal: a pid file tells of one daemon at a time, ours or QEMU's. Method: while one holds it the others are refused, and it is still there
// afterwards.
func TestQSDPidFileIsHeld(t *testing.T) {
	ours := asProgram(t, qsdName)
	for _, first := range []string{stockQSD, ours} {
		s := steer(t, first, "--pidfile", "DIR/pid")
		s.do("query-version")
		for _, second := range []string{stockQSD, ours} {
			for _, more := range [][]string{{}, {"--daemonize"}} {
				got := run(t, s.dir, second, append(more, "--pidfile", "DIR/pid")...)
				require.Equal(t, outcome{Status: 1, Stderr: "qemu-storage-daemon: cannot create PID file: Cannot lock pid file: Resource temporarily unavailable\n"}, got)
			}
		}
		require.FileExists(t, filepath.Join(s.dir, "pid"))
		require.Equal(t, ended, s.end(syscall.SIGTERM))
	}
}

// Goal: as "daemon" the program takes the same options and says at each error what to do. Method: the right lines start, the errors name the
// option.
func TestDaemonDoor(t *testing.T) {
	ours := asProgram(t, programName)
	for _, line := range qsdStarts[:3] {
		dir := sameDir(t)
		said := run(t, dir, ours, append([]string{"daemon", "--daemonize", "--pidfile", "DIR/pid"}, strings.Fields(line)...)...)
		require.Equal(t, 0, said.Status, said.Stderr)
		require.NoError(t, terminate(filepath.Join(dir, "pid")))
	}
	for line, want := range map[string]string{
		"daemon --blockdev null-co":      "nbd-dataplane: --blockdev null-co: 'node-name' must be specified for the root node\n",
		"daemon --bogus":                 "nbd-dataplane: unrecognized option '--bogus'\n",
		"daemon --object iothread,id=1x": "nbd-dataplane: --object iothread,id=1x: Parameter 'id' expects an identifier\n",
		"daemon -T x":                    "nbd-dataplane: --trace: this program has no trace events of QEMU's; leave it out\n",
	} {
		require.Equal(t, outcome{Status: 1, Stderr: want}, run(t, sameDir(t), ours, strings.Fields(line)...))
	}
	require.Contains(t, run(t, sameDir(t), ours, "daemon", "--help").Stdout, "--nbd-server")
	require.Contains(t, run(t, sameDir(t), asProgram(t, qsdName), "-V", "--bogus").Stdout, "qemu-storage-daemon version")
}
