package nfs

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// checksRandom is how many random sequences the suite plays unless -rapid.checks says otherwise.
const checksRandom = "20"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		flag.Set("rapid.checks", checksRandom)
	}
	goleak.VerifyTestMain(m)
}

const (
	diskPath  = "/export/disk"
	diskBytes = 256 << 10
)

// optionsOf are the options to open a file of a server.
func optionsOf(t testing.TB, s *nfstest.Server, path string) Options {
	t.Helper()
	o, ignored, err := ParseURL(s.URL(path))
	require.NoError(t, err)
	require.Empty(t, ignored)
	return o
}

// rig is a server with one file, that is open.
type rig struct {
	t      testing.TB
	server *nfstest.Server
	ctx    *blockcore.AioContext
	file   *File
	health chan Health
}

func newRig(t testing.TB, so nfstest.Options, change func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, server: nfstest.Start(t, so), health: make(chan Health, 1000)}
	r.server.Put(diskPath, nfstest.File{SizeBytes: diskBytes})
	var err error
	r.ctx, err = blockcore.NewAioContext(blockcore.ContextOptions{Name: t.Name()})
	require.NoError(t, err)
	t.Cleanup(r.ctx.Close)
	r.open(change)
	t.Cleanup(r.close)
	return r
}

func (r *rig) open(change func(*Options)) {
	r.t.Helper()
	o := optionsOf(r.t, r.server, diskPath)
	o.OnHealth = func(h Health) { r.health <- h }
	if change != nil {
		change(&o)
	}
	f, err := Open(o)
	require.NoError(r.t, err)
	r.file = f
}

// close closes the file, which must not take long whatever the server does.
func (r *rig) close() {
	if r.file == nil {
		return
	}
	done := r.begin(r.file.Close)
	r.file = nil
	require.NoError(r.t, r.wait(done))
}

// begin runs fn as a Task and returns where its result will come.
func (r *rig) begin(fn func(t *blockcore.Task) error) chan error {
	done := make(chan error, 1)
	require.True(r.t, r.ctx.Post(func() {
		r.ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) { done <- fn(t) }))
	}))
	return done
}

// patienceMax is how long a test waits for what must come.
const patienceMax = time.Minute

func (r *rig) wait(done chan error) error {
	r.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patienceMax):
		require.FailNow(r.t, "what must end does not")
		return nil
	}
}

func (r *rig) do(fn func(t *blockcore.Task) error) error {
	r.t.Helper()
	return r.wait(r.begin(fn))
}

// patiently does what has to succeed, however long a busy machine takes: timeouts are for what must fail.
func (r *rig) patiently(fn func(t *blockcore.Task) error) {
	r.t.Helper()
	was := r.file.timeout.Swap(0)
	err := r.do(fn)
	r.file.timeout.Store(was)
	require.NoError(r.t, err)
}

func (r *rig) writing(off int64, p []byte, flags blockcore.WriteFlags) func(t *blockcore.Task) error {
	return func(t *blockcore.Task) error {
		buf := t.Buffers().Get(len(p))
		defer t.Buffers().Put(buf)
		copy(buf, p)
		return r.file.WriteAt(t, buf, off, flags)
	}
}

func (r *rig) write(off int64, p []byte, flags blockcore.WriteFlags) {
	r.t.Helper()
	r.patiently(r.writing(off, p, flags))
}

func (r *rig) reading(off int64, want []byte) func(t *blockcore.Task) error {
	return func(t *blockcore.Task) error {
		buf := t.Buffers().Get(len(want))
		defer t.Buffers().Put(buf)
		if err := r.file.ReadAt(t, buf, off); err != nil {
			return err
		}
		if !bytes.Equal(buf, want) {
			at := 0
			for buf[at] == want[at] {
				at++
			}
			return fmt.Errorf("at %d there is %#x and not %#x", off+int64(at), buf[at], want[at])
		}
		return nil
	}
}

// check reads, past what is held too.
func (r *rig) check(off int64, want []byte) {
	r.t.Helper()
	r.patiently(r.reading(off, want))
}

func (r *rig) flush() error {
	r.t.Helper()
	return r.do(func(t *blockcore.Task) error { return r.file.Flush(t) })
}

// random are bytes from a seed.
func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	g := rand.New(rand.NewPCG(seed, 1))
	for i := range p {
		p[i] = byte(g.Uint32())
	}
	return p
}

// Goal: a file on an NFS server is a correct disk. Method: the suite over sizes of requests, stability, connections and a length that is no
// multiple of anything.
func TestFileConforms(t *testing.T) {
	for _, c := range []struct {
		name   string
		server nfstest.Options
		size   int64
		url    string
	}{
		{"usual", nfstest.Options{}, 192 << 10, ""},
		{"small requests", nfstest.Options{ReadBytesMax: 8192, WriteBytesMax: 4096}, 192 << 10, ""},
		{"odd size", nfstest.Options{HandleBytes: 64}, 192<<10 + 77, ""},
		{"bare replies", nfstest.Options{NoAttributes: true, HandleBytes: 16}, 192 << 10, ""},
		{"always stable", nfstest.Options{AlwaysSync: true}, 192 << 10, ""},
		{"four connections", nfstest.Options{ReadBytesMax: 32768, WriteBytesMax: 16384}, 192 << 10, "&connections=4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := nfstest.Start(t, c.server)
			count := 0
			blocktest.TestDriver(t, func(t *testing.T) blocktest.Subject {
				count++
				path := fmt.Sprintf("/export/disk%d", count)
				server.Put(path, nfstest.File{SizeBytes: c.size})
				o, _, err := ParseURL(server.URL(path) + c.url)
				require.NoError(t, err)
				open := func() blockcore.Driver {
					f, err := Open(o)
					require.NoError(t, err)
					return f
				}
				return blocktest.Subject{Driver: open(), Reopen: open}
			})
		})
	}
}
