package interop_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/interop/subject"
	"nbd-dataplane/interop/verifier"
)

// killsEnv is how many times the server is killed on each kind of image; make kills has more. killSeedEnv repeats what was done to the images, though not
// the moments of the kills.
const (
	killsEnv     = "KILLS"
	killSeedEnv  = "KILL_SEED"
	killsDefault = 3

	killSessions = 3
	killAnswers  = 1500                  // at most, before a kill
	killLinger   = 3 * time.Millisecond  // at most, between the end of the connections and a kill while the image is closed
	killStartup  = 60 * time.Millisecond // at most, between the start of a server and a kill while the image is opened
)

// killKind is a kind of qcow2 images.
type killKind struct {
	name      string
	options   string // of image create
	granule   int64  // what it maps as one
	size      int64
	driver    string // options of the driver
	backing   bool
	snapshots bool
}

var killKinds = []killKind{
	{name: "default", granule: 64 << 10, size: 16 * mib},
	{name: "small clusters and caches", options: "cluster_size=512,refcount_bits=64", granule: 512, size: 4 * mib, driver: "l2-cache-size=4k,refcount-cache-size=4k,"},
	{name: "lazy refcounts", options: "cluster_size=4k,lazy_refcounts=on", granule: 4 << 10, size: 16 * mib},
	{name: "subclusters", options: "extended_l2=on", granule: 2 << 10, size: 16 * mib},
	{name: "old version", options: "compat=0.10,cluster_size=2k", granule: 2 << 10, size: 8 * mib},
	{name: "overlay", options: "cluster_size=16k", granule: 16 << 10, size: 16 * mib, backing: true},
	{name: "external data", options: "data_file=$.data", granule: 64 << 10, size: 16 * mib},
	{name: "raw external data", options: "data_file=$.data,data_file_raw=on,cluster_size=4k", granule: 4 << 10, size: 16 * mib},
	{name: "snapshots", options: "cluster_size=8k", granule: 8 << 10, size: 16 * mib, snapshots: true},
}

// killing is one image whose server is killed again and again.
type killing struct {
	killKind
	t         *testing.T
	path      string
	random    *rand.Rand
	ledger    *verifier.Ledger
	dirty     bool // was not closed, and says so
	snapshots []*keptSnapshot
	named     int

	total                     verifier.Tally
	repairs, leaks, all, live int
}

// Goal: kill -9 at any moment leaves an image without errors, which has all that is known to be in the file: what was flushed, and what was written into places
// that a flush has made lasting; all else is old or new. Method: several connections work on the image; the server is killed while they do, while it closes the
// image or while it opens it; qemu-img checks and reads what is left, then the next server does, and work goes on. Each image lives through all its kills.
func TestKills(t *testing.T) {
	kills := envNumber(t, killsEnv, killsDefault)
	seed := uint64(envNumber(t, killSeedEnv, int(time.Now().UnixNano())))
	t.Logf("seed %d", seed)
	t.Cleanup(func() { t.Logf("seed %d", seed) })
	for n, kind := range killKinds {
		t.Run(kind.name, func(t *testing.T) {
			k := newKilling(t, kind, rand.New(rand.NewPCG(seed, uint64(n))))
			for range kills {
				k.round()
			}
			k.end()
		})
	}
}

func envNumber(t *testing.T, name string, standard int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

func newKilling(t *testing.T, kind killKind, random *rand.Rand) *killing {
	t.Helper()
	k := &killing{killKind: kind, t: t, path: filepath.Join(t.TempDir(), "image.qcow2"), random: random}
	stamp := uint64(0)
	args := []string{"create", "-q", "-f", "qcow2"}
	if kind.options != "" {
		args = append(args, "-o", strings.ReplaceAll(kind.options, "$", k.path))
	}
	if kind.backing {
		stamp = verifier.BaseStamp
		base := filepath.Join(filepath.Dir(k.path), "base.img")
		require.NoError(t, os.WriteFile(base, verifier.Stamped(0, kind.size/verifier.SectorBytes, stamp), 0o600))
		args = append(args, "-b", "base.img", "-F", "raw")
	}
	k.image(append(args, k.path, strconv.FormatInt(kind.size, 10))...)
	k.ledger = verifier.NewLedger(kind.size, kind.granule, stamp)
	return k
}

// image runs one of the image tools: ours, or qemu-img where QEMU's server is tried.
func (k *killing) image(args ...string) {
	k.t.Helper()
	if program.Stock() {
		client(k.t, "qemu-img", args...).ok(k.t)
		return
	}
	client(k.t, program.Path(), append([]string{"image"}, args...)...).ok(k.t)
}

// round is one server's life, and a look at what it leaves.
func (k *killing) round() {
	k.t.Helper()
	if k.killKind.snapshots && !k.dirty && k.random.IntN(2) == 0 {
		k.changeSnapshots()
	}
	if k.random.IntN(8) == 0 {
		k.killStarting()
	} else {
		k.killWorking(k.start())
	}
	k.all++
	k.ledger.Killed()
	k.awaitRelease()
	k.inspect()
}

// options are those of a server of this image; what it serves stands behind them.
func (k *killing) options() ([]string, string) {
	args := append([]string{"--discard=unmap"}, storages[k.random.IntN(len(storages))].args...)
	if k.monitored() {
		args = append(args, "--control", k.path+".ctl")
	}
	if k.driver != "" {
		return append(args, "--image-opts"), "driver=qcow2," + k.driver + "file.filename=" + k.path
	}
	return append(args, "-f", "qcow2"), k.path
}

// monitored reports whether snapshots are taken while the server works.
func (k *killing) monitored() bool { return k.killKind.snapshots && !program.Stock() }

// start serves the image again: it is repaired, and nothing else is in it than before.
func (k *killing) start() *subject.Server {
	k.t.Helper()
	args, file := k.options()
	server := program.Start(k.t, subject.Options{File: file, Args: args})
	if k.dirty {
		k.repairs++
		if !program.Stock() {
			server.AwaitLog(k.t, "image had not been closed")
		}
		k.check("-U")
	}
	out := filepath.Join(k.t.TempDir(), "disk")
	client(k.t, "nbdcopy", server.URI(), out).ok(k.t)
	_, err := k.ledger.Settle(k.read(out))
	require.NoError(k.t, err, "read from the server")
	return server
}

// killWorking kills a server that has work, or that closes the image.
func (k *killing) killWorking(server *subject.Server) {
	k.t.Helper()
	ended := make(chan error, killSessions)
	most := int64(killAnswers)
	if k.monitored() {
		most *= 4 // some changes of snapshots are to be among them
	}
	reached := k.ledger.After(1 + k.random.Int64N(1+k.random.Int64N(most)))
	for range killSessions {
		s, err := k.ledger.Dial(server.Socket, server.Name)
		require.NoError(k.t, err)
		seed := k.random.Uint64()
		go func() { ended <- s.Run(seed) }()
	}
	snapshots := make(chan error, 1)
	if k.monitored() {
		go k.snapshotLoop(k.path+".ctl", rand.New(rand.NewPCG(k.random.Uint64(), 0)), snapshots)
	} else {
		snapshots <- nil
	}
	select {
	case <-reached:
	case err := <-ended:
		require.FailNow(k.t, "a connection ended before the kill", "%v", err)
	}
	left, closing := killSessions, k.random.IntN(5) == 0
	if closing {
		require.NoError(k.t, syscall.Kill(server.Pid(), syscall.SIGTERM))
		require.NoError(k.t, <-ended)
		left--
		k.linger(killLinger)
	}
	server.Kill(k.t)
	for range left {
		require.NoError(k.t, <-ended)
	}
	if err := <-snapshots; !closing { // a server that closes takes no snapshots
		require.NoError(k.t, err)
	}
}

// killStarting kills a server that is about to open the image.
func (k *killing) killStarting() {
	k.t.Helper()
	args, file := k.options()
	args = append(args, "-k", filepath.Join(filepath.Dir(k.path), "sock"), file)
	line := program.Command(args...)
	cmd := exec.Command(line[0], line[1:]...)
	require.NoError(k.t, subject.Start(cmd))
	k.linger(killStartup)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// awaitRelease returns when the kernel has closed the files of a process that is gone. With io_uring that is when the requests are done which the process
// has left, and it comes later than the end of the process: until then there are the image's locks, and the requests may still write.
func (k *killing) awaitRelease() {
	k.t.Helper()
	for _, path := range []string{k.path, k.path + ".data"} {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(k.t, err)
		free := func() bool {
			lock := unix.Flock_t{Type: unix.F_WRLCK}
			return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Type == unix.F_UNLCK
		}
		require.True(k.t, free() || assert.Eventually(k.t, free, clientMax, time.Millisecond), "%s is locked", path)
		f.Close()
	}
}

// linger waits for a part of a time. Nothing depends on how long: any moment is right for a kill.
func (k *killing) linger(most time.Duration) {
	<-time.After(time.Duration(k.random.Int64N(int64(most))))
}

// inspect has qemu-img look at what a kill has left, and holds it against the ledger.
func (k *killing) inspect() {
	k.t.Helper()
	var info struct {
		Dirty     bool `json:"dirty-flag"`
		Snapshots []struct{ Name string }
	}
	require.NoError(k.t, json.Unmarshal([]byte(client(k.t, "qemu-img", "info", "--output=json", k.path).ok(k.t)), &info))
	if k.dirty = info.Dirty; !k.dirty {
		k.check()
	}
	found, err := k.ledger.Settle(k.convert())
	require.NoError(k.t, err, "after %d kills, read by qemu-img", k.all)
	k.total.Kept, k.total.Lost, k.total.Torn = k.total.Kept+found.Kept, k.total.Lost+found.Lost, k.total.Torn+found.Torn
	var there []string
	for _, s := range info.Snapshots {
		there = append(there, s.Name)
	}
	k.inspectSnapshots(there)
}

// check fails the test if qemu-img finds errors. Clusters that nobody uses are none; now and then they are given back.
func (k *killing) check(args ...string) {
	k.t.Helper()
	var report struct {
		Corruptions int
		CheckErrors int `json:"check-errors"`
		Leaks       int
	}
	r := client(k.t, "qemu-img", append([]string{"check", "--output=json", k.path}, args...)...)
	require.NoError(k.t, json.Unmarshal([]byte(r.stdout), &report), "%v: %s", r.err, r.stderr)
	if report.Corruptions+report.CheckErrors > 0 {
		require.FailNow(k.t, "the image has errors", "after %d kills: %s\n%s", k.all, r.stdout, r.stderr)
	}
	if report.Leaks == 0 {
		r.ok(k.t)
		return
	}
	k.leaks += report.Leaks
	if len(args) == 0 && k.random.IntN(3) == 0 {
		client(k.t, "qemu-img", "check", "-q", "-r", "leaks", k.path).ok(k.t)
	}
}

// convert returns the disk, or a snapshot, as qemu-img reads it.
func (k *killing) convert(args ...string) []byte {
	k.t.Helper()
	out := filepath.Join(k.t.TempDir(), "disk")
	client(k.t, "qemu-img", append(append([]string{"convert", "-f", "qcow2", "-O", "raw"}, args...), k.path, out)...).ok(k.t)
	return k.read(out)
}

// read returns a file's contents and removes it.
func (k *killing) read(path string) []byte {
	k.t.Helper()
	disk, err := os.ReadFile(path)
	require.NoError(k.t, err)
	require.NoError(k.t, os.Remove(path))
	return disk
}

// end closes the image in order: then it has all.
func (k *killing) end() {
	k.t.Helper()
	k.start().Stop(k.t)
	k.inspect()
	require.False(k.t, k.dirty)
	k.t.Logf("%d kills under %d requests and %d changes of snapshots: of the last request to a sector %d were there and %d lost, %d sectors in part; "+
		"%d repairs, %d leaked clusters", k.all, k.ledger.Answers(), k.live, k.total.Kept, k.total.Lost, k.total.Torn, k.repairs, k.leaks)
}
