package interop_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/interop/subject"
	"nbd-dataplane/interop/verifier"
)

// nfsKillsEnv is how often ganesha is killed under load, and how often the scripted server loses its power; make nfs-kills has more.
const (
	nfsKillsEnv     = "NFS_KILLS"
	nfsKillsDefault = 3

	nfsDiskBytes = 16 * mib
	nfsSessions  = 3
	nfsAnswers   = 3000 // at most, between two kills
)

// stockServer reports whether another server than ours is tried, which may be one that cannot be told ports: then the port mapper is at 111, which needs
// root.
func stockServer() bool { return os.Getenv("INTEROP_SERVER") != "" }

func nasURL(nas *nfstest.Server) string {
	if stockServer() {
		return nas.StockURL("/export/disk.img")
	}
	return nas.URL("/export/disk.img")
}

// onNFS starts a server for a file of an NFS server, which a URL names.
func onNFS(t *testing.T, url string, args ...string) *subject.Server {
	t.Helper()
	return program.Start(t, subject.Options{File: url, Name: "disk", Args: append([]string{"-f", "raw", "--shared", "0"}, args...)})
}

// nfsLoad is sessions that work on an export, and a ledger of what they were promised.
type nfsLoad struct {
	t      *testing.T
	ledger *verifier.Ledger
	random *rand.Rand
	ended  chan error
}

func newNFSLoad(t *testing.T, server *subject.Server, ledger *verifier.Ledger, seed uint64) *nfsLoad {
	t.Helper()
	l := &nfsLoad{t: t, ledger: ledger, random: rand.New(rand.NewPCG(seed, 3)), ended: make(chan error, nfsSessions)}
	for range nfsSessions {
		s, err := ledger.Dial(server.Socket, server.Name)
		require.NoError(t, err)
		work := l.random.Uint64()
		go func() { l.ended <- s.Run(work) }()
	}
	return l
}

// goOn waits for some more answers; no session may end meanwhile.
func (l *nfsLoad) goOn() {
	l.t.Helper()
	select {
	case <-l.ledger.After(1 + l.random.Int64N(nfsAnswers)):
	case err := <-l.ended:
		require.FailNow(l.t, "a connection ended", "%v", err)
	case <-time.After(clientMax):
		require.FailNow(l.t, "no more answers come")
	}
}

// linger waits for a part of a time: any moment is right for what comes next.
func (l *nfsLoad) linger(most time.Duration) {
	<-time.After(time.Duration(l.random.Int64N(int64(most))))
}

// over returns when the server has ended all sessions.
func (l *nfsLoad) over() {
	l.t.Helper()
	for range nfsSessions {
		require.NoError(l.t, <-l.ended)
	}
	l.ledger.Killed()
}

func nfsSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(envNumber(t, killSeedEnv, int(time.Now().UnixNano())))
	t.Logf("seed %d", seed)
	t.Cleanup(func() { t.Logf("seed %d", seed) })
	return seed
}

// Goal: the power of the NFS server can go under load: what it had in memory only is gone, and still no client sees an error or a wrong byte, and nothing that was
// flushed is lost. Method: as above, with the scripted server, which loses all or some of what is not committed. At the end of each round it and our server go at
// once: what is on stable storage then is held against the ledger, and the next round begins with it.
func TestNFSPowerCuts(t *testing.T) {
	cuts := envNumber(t, nfsKillsEnv, nfsKillsDefault)
	seed := nfsSeed(t)
	nas := nfstest.Start(t, nfstest.Options{OwnAddress: stockServer(), Seed: seed, WriteBytesMax: 64 << 10, ReadBytesMax: 64 << 10})
	nas.Put("/export/disk.img", nfstest.File{SizeBytes: nfsDiskBytes})
	ledger := verifier.NewVolatileLedger(nfsDiskBytes)
	var total verifier.Tally
	for round := range cuts {
		found := powerCuts(t, nas, ledger, seed+uint64(round))
		total.Kept, total.Lost = total.Kept+found.Kept, total.Lost+found.Lost
	}
	t.Logf("%d rounds of power cuts under %d requests: %+v", cuts, ledger.Answers(), total)
}

// powerCuts is one round.
func powerCuts(t *testing.T, nas *nfstest.Server, ledger *verifier.Ledger, seed uint64) verifier.Tally {
	t.Helper()
	server := onNFS(t, nasURL(nas))
	load := newNFSLoad(t, server, ledger, seed)
	for range load.random.IntN(4) {
		load.goOn()
		switch load.random.IntN(4) {
		case 0:
			nas.LoseUnstable(nfstest.LoseSome)
		case 1:
			nas.Crash(nfstest.LoseSome)
		default:
			nas.Crash(nfstest.LoseAll)
		}
		load.linger(20 * time.Millisecond)
		nas.Restart()
	}
	load.goOn()
	nas.Crash(nfstest.LoseAll)
	server.Kill(t)
	load.over()
	nas.Restart()
	tally, err := ledger.Settle(nas.Stable("/export/disk.img"))
	require.NoError(t, err)
	return tally
}

// nfsFaults are what may happen to any call without a client noticing.
var nfsFaults = []nfstest.Fault{
	{Drop: nfstest.BeforeExecuting}, {Drop: nfstest.AfterExecuting}, {Drop: nfstest.AmidReply}, {Drop: nfstest.AfterExecuting, Reset: true},
	{Delay: 20 * time.Millisecond}, {Behind: 3, Delay: time.Millisecond}, {Again: 3}, {FlipXID: 1 << 30, Again: 1, Drop: nfstest.AfterExecuting},
	{FragmentBytes: 1}, {FragmentBytes: 777}, {CutTo: 12}, {CutTo: 30}, {Mangle: nfstest.AbsurdLength}, {Mangle: nfstest.Garbage(1)},
	{Endless: true}, {Endless: true, FragmentBytes: 5000}, {Status: nfstest.Jukebox}, {StatusAfter: nfstest.Jukebox}, {Short: 512}, {ClaimUnstable: true},
	{Verifier: 12345},
}

// Goal: whatever goes wrong with calls and replies, clients see no error and no wrong byte. Method: sessions work, while calls at random meet each of the faults in
// turn; at the end the disk is compared after an orderly stop, and after the NFS server's power is gone.
func TestNFSFaultsUnderLoad(t *testing.T) {
	seed := nfsSeed(t)
	nas := nfstest.Start(t, nfstest.Options{OwnAddress: stockServer(), Seed: seed, WriteBytesMax: 32 << 10, ReadBytesMax: 32 << 10})
	nas.Put("/export/disk.img", nfstest.File{SizeBytes: nfsDiskBytes})
	server := onNFS(t, nasURL(nas))
	ledger := verifier.NewVolatileLedger(nfsDiskBytes)
	load := newNFSLoad(t, server, ledger, seed)
	for n, fault := range nfsFaults {
		disarm := nas.Inject(nfstest.Rule{First: 1 + load.random.IntN(30), Count: 1 + load.random.IntN(4), Fault: fault})
		load.goOn()
		t.Logf("fault %d met %d calls", n, disarm())
	}
	load.goOn()
	server.Stop(t)
	load.over()
	nas.Crash(nfstest.LoseAll)
	_, err := ledger.Settle(nas.Stable("/export/disk.img"))
	require.NoError(t, err)
}

// nfsOutage is a silent server with a read, a write and a flush of a client in flight.
type nfsOutage struct {
	t     *testing.T
	nas   *nfstest.Server
	m     *monitor
	ended chan result // the client
}

func newNFSOutage(t *testing.T, parameters string) *nfsOutage {
	t.Helper()
	o := &nfsOutage{t: t, nas: nfstest.Start(t, nfstest.Options{}), ended: make(chan result, 1)}
	o.nas.Put("/export/disk.img", nfstest.File{SizeBytes: nfsDiskBytes})
	control := filepath.Join(t.TempDir(), "ctl")
	server := onNFS(t, o.nas.URL("/export/disk.img")+parameters, "--control", control)
	o.m = dialMonitor(t, control)
	require.NoError(t, o.drain(drainMaxSeconds))
	o.nas.Silence()
	t.Cleanup(o.nas.Speak) // before the server is stopped
	go func() {
		o.ended <- client(t, "qemu-io", "-f", "raw", "-c", "aio_read 0 64k", "-c", "aio_write 1M 64k", "-c", "aio_flush", server.URI())
	}()
	o.await(func() bool { return o.inFlight() > 0 })
	return o
}

// drainMaxSeconds is for drains that have nothing to wait for.
const drainMaxSeconds = 60

// drain begins and ends a section, with so much patience.
func (o *nfsOutage) drain(seconds int) error {
	o.t.Helper()
	var lease struct{ ID string }
	err := o.m.try("x-drain-begin", args{"exports": []string{"disk"}, "lease": 30, "timeout": seconds, "flush": false}, &lease)
	if err == nil {
		o.m.do("x-drain-end", args{"id": lease.ID}, nil)
	}
	return err
}

func (o *nfsOutage) inFlight() int {
	o.t.Helper()
	var list []any
	o.m.do("x-query-inflight", nil, &list)
	return len(list)
}

func (o *nfsOutage) await(so func() bool) {
	o.t.Helper()
	require.Eventually(o.t, so, clientMax, time.Millisecond)
}

// freed deletes the export and the node, and waits until there is nothing left of them.
func (o *nfsOutage) freed() {
	o.t.Helper()
	o.m.do("block-export-del", args{"id": "disk", "mode": "hard"}, nil)
	<-o.ended // the client is thrown out whatever the server of NFS does
	o.await(func() bool { return o.m.try("blockdev-del", args{"node-name": "disk0"}, nil) == nil })
	o.nas.AwaitConnections(0)
	var left []any
	o.m.do("query-block-exports", nil, &left)
	require.Empty(o.t, left)
	o.m.do("query-named-block-nodes", nil, &left)
	require.Empty(o.t, left)
	require.Zero(o.t, o.inFlight())
}

// Goal: a drain during an outage says whom it waits for and keeps its deadline, and afterwards everything goes on. Method: a silent server with requests in
// flight; it answers again.
func TestNFSDrainDuringAnOutage(t *testing.T) {
	o := newNFSOutage(t, "")
	begin := time.Now()
	err := o.drain(1)
	require.ErrorContains(t, err, "READ [0x0, +0x10000) in node disk0 of client 1")
	require.Less(t, time.Since(begin), 10*time.Second)
	o.nas.Speak()
	r := <-o.ended
	r.ok(t)
	require.NoError(t, o.drain(drainMaxSeconds))
	atRest(t, o.m)
}

// Goal: a client is thrown out at once during an outage, and the export and its node are freed during it, with a timeout and without one. Method: a silent server with
// requests in flight, which never speaks again.
func TestNFSExportIsDeletedDuringAnOutage(t *testing.T) {
	t.Run("timeout", func(t *testing.T) { newNFSOutage(t, "&timeout=60").freed() })
	t.Run("none", func(t *testing.T) { newNFSOutage(t, "").freed() })
}
