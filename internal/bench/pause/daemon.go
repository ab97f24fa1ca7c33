package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// kind is a program that takes qemu-storage-daemon's command line.
type kind struct {
	name string
	argv []string
}

// daemon is one that runs, with a monitor.
type daemon struct {
	cmd     *exec.Cmd
	dir     string
	uri     string
	conn    net.Conn
	answers *bufio.Reader
	kept    [][]byte             // lines that nobody has looked at
	phases  map[string][]float64 // of the drained sections that it told of, in nanoseconds
}

// startMax is how long a daemon may take to be ready.
const startMax = 10 * time.Second

// start runs a daemon with two nodes of the same size, d and other, the first of them exported.
func start(k kind, storage, file string) (*daemon, error) {
	dir, err := os.MkdirTemp("", "pause")
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, phases: map[string][]float64{}, uri: "nbd+unix:///d?socket=" + filepath.Join(dir, "nbd")}
	args := append(k.argv[1:len(k.argv):len(k.argv)],
		"--blockdev", blockdev("d", storage, file), "--blockdev", blockdev("other", storage, file+".other"),
		"--nbd-server", "addr.type=unix,addr.path="+filepath.Join(dir, "nbd"),
		"--export", "nbd,id=e,node-name=d,writable=on",
		"--chardev", "socket,id=m,server=on,wait=off,path="+filepath.Join(dir, "qmp"), "--monitor", "m")
	d.cmd = exec.Command(k.argv[0], args...)
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", k.name, err)
	}
	if err := d.open(filepath.Join(dir, "qmp")); err != nil {
		d.stop()
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	return d, nil
}

func blockdev(name, storage, file string) string {
	if storage == "null" {
		return fmt.Sprintf("driver=null-co,node-name=%s,size=%d,read-zeroes=on", name, sizeBytes)
	}
	if storage == "qcow2" {
		return fmt.Sprintf("driver=qcow2,node-name=%s,file.driver=file,file.filename=%s", name, file)
	}
	return fmt.Sprintf("driver=file,node-name=%s,filename=%s", name, file)
}

// open connects to the monitor.
func (d *daemon) open(path string) error {
	var err error
	for begin := time.Now(); time.Since(begin) < startMax; time.Sleep(10 * time.Millisecond) {
		if d.conn, err = net.Dial("unix", path); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	d.answers = bufio.NewReader(d.conn)
	if _, err := d.answers.ReadBytes('\n'); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	return d.do("qmp_capabilities", nil)
}

// do runs a command to its answer.
func (d *daemon) do(command string, arguments any) error {
	text, err := message(command, arguments)
	if err != nil {
		return err
	}
	if err := d.send(text); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if err := d.understand(); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// message is a command as it is sent.
func message(command string, arguments any) ([]byte, error) {
	m := map[string]any{"execute": command}
	if arguments != nil {
		m["arguments"] = arguments
	}
	return json.Marshal(m)
}

// send sends a command and waits for its answer, which it only keeps, with the events before it: what it takes to understand them would be taken
// from the client.
func (d *daemon) send(text []byte) error {
	if _, err := d.conn.Write(text); err != nil {
		return err
	}
	for {
		line, err := d.answers.ReadBytes('\n')
		if err != nil {
			return err
		}
		d.kept = append(d.kept, line)
		if !bytes.HasPrefix(line, []byte(`{"timestamp"`)) {
			return nil
		}
	}
}

// understand looks at what was kept.
func (d *daemon) understand() error {
	defer func() { d.kept = d.kept[:0] }()
	for _, line := range d.kept {
		var answer struct {
			Event string
			Data  map[string]any
			Error *struct{ Desc string }
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return err
		}
		if answer.Error != nil {
			return errors.New(answer.Error.Desc)
		}
		d.learn(answer.Data)
	}
	return nil
}

// learn notes what an event says of the phases of a section.
func (d *daemon) learn(data map[string]any) {
	for _, phase := range phases {
		if us, ok := data[phase+"-us"].(float64); ok {
			d.phases[phase] = append(d.phases[phase], us*1000)
		}
	}
}

func (d *daemon) stop() {
	if d.conn != nil {
		d.conn.Close()
	}
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
	os.RemoveAll(d.dir)
}
