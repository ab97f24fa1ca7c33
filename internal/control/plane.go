package control

import (
	"fmt"
	"sync"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

// Options say what a Plane works on.
type Options struct {
	Graph *blockcore.Graph
	// Main is the AioContext of nodes that nobody has put on another one.
	Main *blockcore.AioContext
	// Drivers are the block drivers that there are, by the names of blockdev-add.
	Drivers map[string]Driver
	// CreateImage makes the file of an image; undo takes away what was not there before.
	CreateImage func(NewImage) (undo func() error, err error)
	// DescribeFile returns the options for a file by its name; it comes with CreateImage.
	DescribeFile func(name string) (qmp.Value, error)
	// Creators are the drivers that blockdev-create knows.
	Creators map[string]Creator
	// NewContext starts the event loop of an iothread object.
	NewContext func(blockcore.ContextOptions) (*blockcore.AioContext, error)
	// Security makes an object of one of the kinds tls-creds-x509, authz-* and secret.
	Security func(SecurityRequest) (Security, error)
	// NewServer makes the NBD server when nbd-server-start asks for one.
	NewServer func(nbd.ServerOptions) *nbd.Server
	// Listen opens the socket of an NBD server.
	Listen func(Address) (Listener, error)
	// Offers are what earlier processes have offered; nil = there was none.
	Offers *nbd.Offers
	// Quit ends the process in order, after the answer.
	Quit func()
	// OnEvent receives what happens at the NBD server, besides the monitors; may be nil.
	OnEvent func(nbd.Event)
	// OnStorage receives how storage is doing that may be out of reach, besides the monitors; may be nil. It does not block.
	OnStorage func(StorageHealth)
	// DrainMax bounds each wait for requests in flight; 0 takes blockcore.DrainMaxDefault.
	DrainMax time.Duration
	Version  string
}

// Plane is the control plane of a process.
type Plane struct {
	// Immutable.
	options Options
	graph   *blockcore.Graph
	monitor *qmp.Server
	jobs    *blockcore.Jobs
	offers  *nbd.Offers // of one NBD server after the other

	// Guarded by mu.
	mu      sync.Mutex
	objects map[string]*object
	owned   map[string]*blockcore.Node // nodes that a monitor or the command line asked for
	opened  map[*blockcore.Node]*opened
	server  *service // nil = not running
	exports map[string]*export
	leases  map[string]*lease
	lastID  uint64

	lastExport uint64
}

// New returns a Plane without objects.
func New(o Options) *Plane {
	p := &Plane{
		options: o, graph: o.Graph,
		objects: map[string]*object{}, owned: map[string]*blockcore.Node{}, opened: map[*blockcore.Node]*opened{},
		exports: map[string]*export{}, leases: map[string]*lease{},
		offers: o.Offers, jobs: blockcore.NewJobs(o.Graph),
	}
	if p.offers == nil {
		p.offers = nbd.NewOffers()
	}
	p.monitor = qmp.New(qmp.Options{Version: qmpVersion(o.Version), Commands: detailed(p.commands()), Quit: o.Quit})
	return p
}

// qmpVersion says which QEMU's vocabulary is spoken.
func qmpVersion(version string) qmp.Version {
	return qmp.VersionOf(7, 2, 22, "nbd-dataplane "+version)
}

// Monitor returns the server of monitors. Safe from anywhere.
func (p *Plane) Monitor() *qmp.Server { return p.monitor }

// nodeNameMax is the longest node-name, in bytes, as QEMU has it.
const nodeNameMax = 31

// node finds a node for a command that changes it.
func (p *Plane) node(name string) (*blockcore.Node, error) {
	n := p.graph.Node(name)
	if n == nil {
		return nil, qmp.Errorf("Cannot find device='' nor node-name='%s'", name)
	}
	return n, nil
}

// either finds what QEMU looks for among devices and nodes.
func (p *Plane) either(name string) (*blockcore.Node, error) {
	if n := p.graph.Node(name); n != nil {
		return n, nil
	}
	return nil, qmp.Errorf("Cannot find device='%s' nor node-name='%s'", name, name)
}

// nextID makes up a name that has not been used.
func (p *Plane) nextID(prefix string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastID++
	return fmt.Sprintf("%s%d", prefix, p.lastID)
}

// drainOptions are those of a section for a command.
func (p *Plane) drainOptions(why string, nodes ...*blockcore.Node) blockcore.DrainOptions {
	return blockcore.DrainOptions{Why: why, Nodes: nodes, Max: p.options.DrainMax}
}

// flushedOptions are those of a section in which nodes are flushed: that is mostly done before, while clients go on.
func (p *Plane) flushedOptions(why string, nodes ...*blockcore.Node) blockcore.DrainOptions {
	o := p.drainOptions(why, nodes...)
	o.FlushAhead = true
	return o
}
