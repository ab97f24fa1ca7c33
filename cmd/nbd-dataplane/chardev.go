package main

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/qmp"
)

// chardev is a way for a monitor to come in.
type chardev struct {
	place  *place   // a socket that listens
	conn   net.Conn // one that is connected, the first one of place too, until it is served
	stdio  bool
	stream io.ReadWriteCloser // a file or pipes; nil = none
	waits  bool               // for its first client before the program goes on
	words  string             // of the command line that asked for it
	taken  bool               // a monitor has it
	pretty bool
}

// makeChardev reads a --chardev and opens it.
func makeChardev(text string) (id string, c *chardev, err error) {
	v, err := qmp.ParseOption(text, "backend")
	if err != nil {
		return "", nil, err
	}
	var head struct {
		Backend *string `qmp:"backend"`
		ID      *string `qmp:"id"`
	}
	rest, err := v.Take(&head)
	switch {
	case err != nil:
		return "", nil, err
	case head.ID == nil:
		return "", nil, qmp.Errorf("chardev: no id specified")
	case !blockcore.IsIdentifier(*head.ID):
		return "", nil, control.NotIdentifier()
	case head.Backend == nil:
		return "", nil, qmp.Errorf(`chardev: "%s" missing backend`, *head.ID)
	}
	read, known := chardevKinds[*head.Backend]
	switch {
	case slices.Contains(chardevsAbsent, *head.Backend):
		return "", nil, qmp.Errorf("chardev '%s' is not available here: use socket, pipe, pty, stdio or file", *head.Backend)
	case !known:
		return "", nil, qmp.Errorf("'%s' is not a valid char driver name", *head.Backend)
	}
	for _, name := range rest.Members() {
		if !chardevOptions[name] {
			return "", nil, qmp.Errorf("Invalid parameter '%s'", name)
		}
	}
	if _, err := rest.Take(&chardevSwitches{}); err != nil {
		return "", nil, err
	}
	c, err = read(rest)
	return *head.ID, c, err
}

// chardevKinds make a chardev of the options that are left.
var chardevKinds = map[string]func(qmp.Value) (*chardev, error){
	"socket": makeSocketChardev,
	"stdio": func(qmp.Value) (*chardev, error) {
		return &chardev{stdio: true}, nil
	},
	"file":   makeFileChardev,
	"pipe":   makePipeChardev,
	"pty":    makePTYChardev,
	"serial": makeSerialChardev,
	"tty":    makeSerialChardev, // its old name
	"null":   func(qmp.Value) (*chardev, error) { return &chardev{}, nil },
}

// chardevOptions are the options that any of the kinds takes.
var chardevOptions = map[string]bool{
	"path": true, "host": true, "port": true, "fd": true, "server": true, "wait": true, "abstract": true, "tight": true, "ipv4": true, "ipv6": true, "delay": true,
	"nodelay": true, "reconnect": true, "signal": true, "telnet": true, "websocket": true, "mux": true, "append": true,
}

// chardevSwitches are those that are switches. QEMU looks at them with each kind, and takes those of others without a word.
type chardevSwitches struct {
	Server    *bool `qmp:"server"`
	Wait      *bool `qmp:"wait"`
	Abstract  *bool `qmp:"abstract"`
	Tight     *bool `qmp:"tight"`
	IPv4      *bool `qmp:"ipv4"`
	IPv6      *bool `qmp:"ipv6"`
	Delay     *bool `qmp:"delay"`
	NoDelay   *bool `qmp:"nodelay"`
	Signal    *bool `qmp:"signal"`
	Telnet    *bool `qmp:"telnet"`
	WebSocket *bool `qmp:"websocket"`
	Mux       *bool `qmp:"mux"`
	Append    *bool `qmp:"append"`
}

// socketOptions are those of a chardev of the kind socket.
type socketOptions struct {
	Path      *string `qmp:"path"`
	Host      *string `qmp:"host"`
	Port      *string `qmp:"port"`
	FD        *int    `qmp:"fd"`
	Server    bool    `qmp:"server,optional"`
	Wait      *bool   `qmp:"wait"`
	Abstract  bool    `qmp:"abstract,optional"`
	Tight     *bool   `qmp:"tight"`
	IPv4      *bool   `qmp:"ipv4"`
	IPv6      *bool   `qmp:"ipv6"`
	Delay     *bool   `qmp:"delay"`
	NoDelay   *bool   `qmp:"nodelay"`
	Reconnect *int64  `qmp:"reconnect"`
}

func makeSocketChardev(v qmp.Value) (*chardev, error) {
	var a socketOptions
	rest, err := v.Take(&a)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"telnet", "websocket", "mux"} {
		if slices.Contains(rest.Members(), name) {
			return nil, qmp.Unexpected(name) // these make other sockets of them
		}
	}
	switch {
	case !a.Server && a.Wait != nil:
		return nil, qmp.Errorf("'wait' option is incompatible with socket in client connect mode")
	case a.Path == nil && a.FD == nil && a.Host == nil:
		return nil, qmp.Errorf("chardev: socket: no path, host or fd given")
	case a.Host != nil && a.Port == nil:
		return nil, qmp.Errorf("chardev: socket: no port given")
	case !a.Server:
		return a.connect()
	}
	c := &chardev{waits: a.Wait == nil || *a.Wait}
	switch {
	case a.FD != nil:
		c.place, err = activatedPlace(os.NewFile(uintptr(*a.FD), "fd"), *a.FD)
	case a.Path != nil && a.Abstract:
		c.place, err = listenAbstract("@" + *a.Path)
	case a.Path != nil:
		c.place, err = listenPrivately(*a.Path, true)
	default:
		c.place, err = listenTCP(*a.Host, *a.Port)
	}
	return c, err
}

// chardevConnectMax bounds the wait for whoever the monitor is to be connected to.
const chardevConnectMax = 10 * time.Second

// connect makes a chardev that is connected already.
func (a *socketOptions) connect() (c *chardev, err error) {
	c = &chardev{}
	switch {
	case a.FD != nil:
		f := os.NewFile(uintptr(*a.FD), "fd")
		defer f.Close()
		c.conn, err = net.FileConn(f)
	case a.Path != nil && a.Abstract:
		c.conn, err = net.DialTimeout("unix", "@"+*a.Path, chardevConnectMax)
	case a.Path != nil:
		c.conn, err = net.DialTimeout("unix", *a.Path, chardevConnectMax)
	default:
		c.conn, err = net.DialTimeout("tcp", net.JoinHostPort(*a.Host, *a.Port), chardevConnectMax)
	}
	if err != nil {
		return nil, qmp.Errorf("Failed to connect to '%s': %s", a.where(), strerror(errnoOf(err)))
	}
	return c, nil
}

// where is the address in QEMU's words.
func (a *socketOptions) where() string {
	switch {
	case a.FD != nil:
		return strconv.Itoa(*a.FD)
	case a.Path != nil:
		return *a.Path
	}
	return *a.Host + ":" + *a.Port
}

// listenPrivately makes a socket that only its owner may connect to: who reaches a monitor may do anything to the server.
func listenPrivately(path string, takeOver bool) (*place, error) {
	before := unix.Umask(0o177)
	defer unix.Umask(before)
	return listenUnix(path, takeOver)
}

// meet waits for the first client of a chardev that is to wait for it, and says so: nothing else is to be seen of the program meanwhile.
func (c *chardev) meet(signals <-chan os.Signal, j *journal) (err error) {
	if c.waits {
		j.waits(c)
		c.conn, err = c.firstClient(signals)
	}
	return err
}

// serve lets monitors in until the server of monitors is closed.
func (c *chardev) serve(s *qmp.Server) {
	monitor := qmp.Monitor{Pretty: c.pretty}
	if c.stdio {
		go serveStdio(s, monitor)
	}
	if c.conn != nil {
		go serveOne(s, c.conn, monitor)
		c.conn = nil // the server of monitors closes it
	}
	if c.stream != nil {
		go serveOne(s, c.stream, monitor)
	}
	if c.place != nil {
		go serveLoop(s, c.place.listener, monitor)
	}
}

// firstClient waits for the first monitor, or for a signal that stops the program.
func (c *chardev) firstClient(signals <-chan os.Signal) (net.Conn, error) {
	accepted, stopped := make(chan struct{}), make(chan bool, 1)
	go c.heedLoop(signals, accepted, stopped)
	conn, err := c.place.listener.Accept()
	close(accepted)
	if !<-stopped {
		return conn, err
	}
	if conn != nil {
		conn.Close()
	}
	return nil, errors.New("stopped while waiting for a monitor to connect")
}

// heedLoop ends the wait for the first monitor when a signal comes, and itself with that wait.
func (c *chardev) heedLoop(signals <-chan os.Signal, accepted <-chan struct{}, stopped chan<- bool) {
	select {
	case <-signals:
		c.place.listener.Close()
		stopped <- true
	case <-accepted:
		stopped <- false
	}
}

// serveLoop ends with the server.
func serveLoop(s *qmp.Server, l net.Listener, m qmp.Monitor) { _ = s.Serve(l, m) }

// serveOne ends with the client.
func serveOne(s *qmp.Server, conn io.ReadWriteCloser, m qmp.Monitor) { _ = s.ServeConn(conn, m) }

// serveStdio ends with the standard input.
func serveStdio(s *qmp.Server, m qmp.Monitor) { _ = s.ServeConn(stdio{os.Stdin, os.Stdout}, m) }

// close takes no monitor in any more. Those that are served are closed by their server, last of all.
func (c *chardev) close() {
	if c.place != nil {
		c.place.close()
	}
	if c.conn != nil {
		c.conn.Close()
	}
	if c.stream != nil {
		c.stream.Close()
	}
}

// stdio is the standard input and output as one.
type stdio struct {
	io.Reader
	io.Writer
}

// Close ends the reads; the descriptors belong to the process.
func (stdio) Close() error { return errors.Join(os.Stdin.SetReadDeadline(pastTime), nil) }
