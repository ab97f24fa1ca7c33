package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"nbd-dataplane/backends/nfs"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/control"
	"nbd-dataplane/nbd"
)

// stopMax is how long a stopping server waits for requests in flight and for clients to take their replies before it
// cuts the connections.
const stopMax = 30 * time.Second

// session is one run of the server: what has been started, in the order in which it was. Stopping goes the other way. The
// goroutine that starts and stops owns what stands under no heading.
type session struct {
	privateDir string // of the socket of --run; empty = none
	security   security
	places     []*place
	contexts   []*blockcore.AioContext
	graph      *blockcore.Graph
	nodes      []*blockcore.Node
	made       []string   // files made by --create
	temporary  []*os.File // what -s writes to
	server     *nbd.Server
	plane      *control.Plane // nil without --control
	opener     *control.Plane // opens images; the plane, if there is one
	monitor    *place         // where the plane's monitors connect
	exports    []string       // names, in the order of the command line
	images     []image        // in the same order
	pid        *pidFile
	offers     *nbd.Offers // nil without --remember

	// Immutable.
	o       *options
	journal *journal
	haste   haste
	events  *eventQueue
	ended   chan ending // holds one
	// signalled gets the first signal that asks for the end; holds it.
	signalled chan os.Signal

	// Safe from anywhere.
	abandoned atomic.Bool // a second signal has come, or the stop took too long
	served    atomic.Bool // a client has opened an export and closed it
}

func newSession(o *options, j *journal) *session {
	lost := func(n uint64) { j.warn(fmt.Sprintf("%d events were not written down: the log is too slow", n)) }
	j.events = newEventQueue(j.record, lost)
	return &session{
		o: o, journal: j, events: j.events, ended: make(chan ending, 1), signalled: make(chan os.Signal, 1),
		haste: haste{journal: j, stopped: make(chan struct{})},
	}
}

// start brings the server up to the point where clients can connect. When it fails nothing is left behind.
func (s *session) start() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
			s.unmake()
		}
	}()
	for _, step := range s.steps() {
		if err := step(); err != nil {
			return err
		}
	}
	for _, p := range s.places {
		go s.acceptLoop(p)
	}
	return nil
}

// steps are what a start does. qemu-nbd's order decides what it reports if several things are wrong; ours looks at the
// images before it bothers anybody else.
func (s *session) steps() []func() error {
	if s.o.door == doorQEMU {
		return []func() error{s.secure, s.listen, s.makeServer, s.readImages, s.openImages, s.writePID}
	}
	return []func() error{s.secure, s.readImages, s.makeServer, s.openImages, s.listen, s.openMonitor, s.writePID}
}

func (s *session) secure() (err error) {
	s.security, err = s.o.serverSecurity(func(err error) { s.journal.warn(err.Error()) })
	return err
}

func (s *session) isTLS() bool { return s.security.mode != nbd.TLSOff }

// listen opens the sockets. --run without a place to listen gets a private one, since only its command needs to find it.
func (s *session) listen() (err error) {
	if s.o.run != "" && len(s.o.aboutListening()) == 0 && activatedCount() == 0 {
		if s.privateDir, err = os.MkdirTemp("", programName+"-"); err != nil {
			return fmt.Errorf("--run: directory of the socket: %w", err)
		}
		s.o.socket = filepath.Join(s.privateDir, "socket")
	}
	s.places, err = s.o.listen()
	return err
}

func (s *session) makeServer() error {
	o := s.o
	connections := o.connectionsMax
	if o.door == doorQEMU {
		connections = -1 // -e is its only limit
	}
	offers, err := rememberedIn(o.remember, s.journal.warn)
	if err != nil {
		return err
	}
	s.offers = offers
	s.server = nbd.NewServer(nbd.ServerOptions{
		Limits: nbd.Limits{
			Handshake: o.handshakeTimeout, Connections: connections,
			ProcessBytes: o.memoryLimit, ExportBytes: o.exportMemory, ConnectionBytes: o.connectionMemory,
		},
		TLS: s.security.mode, Credentials: s.security.credentials, Authz: s.security.authz,
		ClientsMax: o.shared,
		ExactNames: o.door == doorQEMU,
		Offers:     offers,
		OnEvent:    s.onEvent,
	})
	return s.makeContexts()
}

// makeContexts starts the event loops: by default one for each export, as long as each has a CPU.
func (s *session) makeContexts() error {
	count := s.o.ioThreads
	if count == 0 {
		count = runtime.NumCPU()
	}
	for n := range min(count, len(s.o.files)) {
		c, err := blockcore.NewAioContext(blockcore.ContextOptions{
			Name: fmt.Sprintf("iothread%d", n), Engine: s.o.engine(), PollMax: s.o.pollMax, Workers: s.o.workers,
		})
		if err != nil {
			return wrong(fmt.Sprintf("event loop: %v; choose another engine with --aio", err), fmt.Sprintf("event loop: %v", err))
		}
		s.contexts = append(s.contexts, c)
	}
	s.journal.log.Debug().Int("loops", len(s.contexts)).Str("engine", s.contexts[0].EngineName()).Msg("event loops started")
	return s.makeGraph()
}

// readImages finds out what the command line says about the images, and in which format they are.
func (s *session) readImages() error {
	for _, arg := range s.o.files {
		name, file := s.o.splitFile(arg)
		img, err := s.o.imageOf(file)
		for _, text := range img.deprecated {
			if s.o.door == doorQEMU {
				s.journal.warn(text)
			}
		}
		if err != nil {
			return err
		}
		s.exports = append(s.exports, name)
		s.images = append(s.images, img)
	}
	return nil
}

func (s *session) openImages() error {
	for n := range s.images {
		if err := s.addExport(s.exports[n], &s.images[n], s.contexts[n%len(s.contexts)], n); err != nil {
			return err
		}
	}
	return nil
}

// openImage makes the node of an image.
func (s *session) openImage(img *image, c *blockcore.AioContext, name string) (*blockcore.Node, error) {
	if err := s.create(img); err != nil {
		return nil, err
	}
	if img.node != nil {
		return img.openNode(s.opener, name, c)
	}
	creates := img.nfs == nil && img.creates()
	driver, err := s.openDriver(img)
	if err != nil {
		return nil, err
	}
	if creates {
		s.made = append(s.made, img.raw.Path)
	}
	node, err := s.graph.AddNode(blockcore.NodeOptions{Name: name, Context: c, Driver: driver})
	if err != nil {
		return nil, openError(img.display, errors.Join(err, c.Do(driver.Close)))
	}
	return node, nil
}

func (s *session) openDriver(img *image) (blockcore.Driver, error) {
	if img.nfs != nil {
		return img.openNFS(s.journal.warn, func(h nfs.Health) { s.opener.TellStorage(storageHealth(h)) })
	}
	return img.open(s.journal.warn)
}

func (s *session) addExport(name string, img *image, c *blockcore.AioContext, n int) error {
	open := s.openImage
	if s.o.overlay {
		open = s.openOverlay
	}
	node, err := open(img, c, nodeName(n))
	if err == nil && s.o.door == doorQEMU && img.raw.ReadOnly && !s.o.readOnly {
		err = openError(img.display, errors.New("Block node is read-only")) // our own door takes it as --read-only
	}
	if err == nil {
		err = s.loadSnapshot(img, node)
	}
	if err != nil {
		return err
	}
	s.nodes = append(s.nodes, node)
	if img.guarded() {
		s.journal.log.Info().Str("image", img.display).Msg("format was not given, and taken for raw; -f raw allows what would make it look like another")
	}
	if s.journal.door == doorQEMU {
		fmt.Fprint(s.journal.err, img.probingWarning())
	}
	bitmaps, err := control.ExportBitmaps(node, s.o.bitmaps, !img.raw.ReadOnly)
	if err != nil {
		return err
	}
	e, err := s.server.AddExport(s.graph, nbd.ExportOptions{
		Name: name, Description: s.o.description, Node: node, Writable: !img.raw.ReadOnly,
		Shared: s.o.shared, AllocationDepth: s.o.allocationDepth, Bitmaps: bitmaps, MinBlock: img.minBlock(),
		Farewell: s.o.farewell(), AllowLess: s.o.allowLess,
	})
	if err == nil && s.plane != nil {
		err = s.plane.AdoptExport(exportID(name, n), e, img.driver())
	}
	return err
}

func (s *session) writePID() (err error) {
	if s.o.pidFile != "" {
		s.pid, err = writePIDFile(s.o.pidFile)
	}
	return err
}

// acceptLoop takes clients from one place until the server stops.
func (s *session) acceptLoop(p *place) {
	if err := s.server.Serve(p.listener); err != nil {
		s.end(ending{"a listener has ended", err})
	}
}

// ending is a reason to stop, other than a signal.
type ending struct {
	why string
	err error // nil = nothing is wrong
}

// end asks for the session to be stopped. Only the first reason counts.
func (s *session) end(why ending) {
	select {
	case s.ended <- why:
	default:
	}
}

// onEvent receives what happens in the server. It is called on loops and does not block.
func (s *session) onEvent(e nbd.Event) {
	s.events.put(e)
	if s.plane != nil {
		s.plane.TellServer(e)
	}
	switch e := e.(type) {
	case nbd.ConnectionClosed:
		s.served.Store(true)
	case nbd.ClientGone:
		// Who only looked around, or was sent away, is no client whose leaving ends the server.
		if e.Left == 0 && s.served.Load() && s.o.exitsAfterLast() {
			s.end(ending{why: "no clients left"})
		}
	}
}

// stop takes everything down in order: no new clients, requests finished and answered, images flushed and closed. There is a limit to
// how long that may take.
func (s *session) stop() error {
	var errs []error
	guard := guardStop(s.o.stopTimeout, s.graph, s.hasten, s.abandon)
	defer guard.done()
	defer close(s.haste.stopped)
	s.journal.hurry()
	guard.step("waiting for requests in flight")
	for _, p := range s.places {
		p.close()
	}
	s.quietMonitor()
	if s.server != nil {
		errs = append(errs, s.stopServer())
	}
	guard.step("flushing and closing the images", errs...)
	err := s.removeNodes()
	errs = append(errs, err)
	for _, f := range s.temporary {
		f.Close()
	}
	guard.step("ending the event loops", err)
	if s.plane != nil {
		errs = append(errs, s.plane.CloseObjects(), s.plane.Close())
	}
	for _, c := range s.contexts {
		c.Close()
	}
	if s.offers != nil {
		errs = append(errs, s.offers.Close())
	}
	s.events.close()
	if s.pid != nil && s.o.door == doorServe {
		s.pid.remove() // qemu-nbd leaves its own
	}
	if s.privateDir != "" {
		os.RemoveAll(s.privateDir)
	}
	return errors.Join(errs...)
}

// stopServer parts from all clients. What a section holds back is not executed any more, and so sections end after the input of clients, and
// before what is in flight is waited for: one that is held still would hold up the end.
func (s *session) stopServer() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopMax)
	defer cancel()
	err := s.server.EndInput(ctx)
	if s.plane != nil {
		s.plane.EndSections()
	}
	return errors.Join(err, s.server.Stop(ctx))
}

// unmake removes what a failed start would leave behind, after stop.
func (s *session) unmake() {
	for _, path := range s.made {
		_ = removeStorage(path) // the start has failed already, and said why
	}
	if s.pid != nil && s.o.door == doorQEMU {
		s.pid.remove()
	}
}
