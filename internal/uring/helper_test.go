package uring

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/membuf"
)

func TestMain(m *testing.M) {
	if os.Getenv(echoEnv) != "" {
		echo()
		return
	}
	goleak.VerifyTestMain(m)
}

// address is what goes into an SQE.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// host is a ring with memory for it, on a thread of its own.
type host struct {
	*Ring
	pool *membuf.Pool
}

// newHost makes and enables a ring. The kernel it gets refuses the setup flags in refused, as one that is
// older does.
func newHost(t testing.TB, p Params, refused uint32) *host {
	runtime.LockOSThread()
	pool := membuf.NewPool(0)
	p.Owns = pool.OwnsRange
	r, err := newRing(p, refusing(refused))
	require.NoError(t, err)
	require.NoError(t, r.Enable())
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		require.NoError(t, pool.Close())
		runtime.UnlockOSThread()
	})
	return &host{r, pool}
}

// refusing is a kernel that does not know some setup flags.
func refusing(flags uint32) setupCall {
	return func(entries uint32, p *setupParams) (int, unix.Errno) {
		if p.flags&flags != 0 {
			return -1, unix.EINVAL
		}
		return setup(entries, p)
	}
}

// kernels are the rungs of the ladder as refusals: the newest kernel, and older ones.
var kernels = map[string]uint32{
	"newest":                0,
	"without NO_SQARRAY":    setupNoSQArray,
	"without DEFER_TASKRUN": setupDeferTaskrun,
	"without SINGLE_ISSUER": setupSingleIssuer,
	"without COOP_TASKRUN":  setupSingleIssuer | setupTaskrunFlag,
	"with nothing but 5.11": ^uint32(setupAlways),
}

// everywhere runs a test on each rung of the ladder and with both ways to wait.
func everywhere(t *testing.T, p Params, test func(t *testing.T, h *host)) {
	for name, refused := range kernels {
		for _, raw := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/raw=%v", name, raw), func(t *testing.T) {
				h := newHost(t, p, refused)
				h.RawWait = raw
				test(t, h)
			})
		}
	}
}

// next returns a free SQE, which must be there.
func (h *host) next(t require.TestingT, userData uint64) *SQE {
	s := h.Next()
	require.NotNil(t, s, "the submission queue is full")
	s.UserData = userData
	return s
}

// collect submits and waits until n completions have come and returns them by their user data.
func (h *host) collect(t require.TestingT, n int) map[uint64]CQE {
	got := map[uint64]CQE{}
	out := make([]CQE, 3)
	for len(got) < n {
		require.NoError(t, h.SubmitAndWait(-1))
		for k := h.Reap(out); k > 0; k = h.Reap(out) {
			for _, c := range out[:k] {
				require.NotContains(t, got, c.UserData, "completed twice")
				got[c.UserData] = c
			}
		}
	}
	require.Len(t, got, n)
	return got
}

// errno is the error of a completion.
func (c CQE) errno() unix.Errno {
	if c.Res < 0 {
		return unix.Errno(-c.Res)
	}
	return 0
}

// pipe returns a pipe that ends with the test.
func pipe(t testing.TB) (r, w int) {
	var fds [2]int
	require.NoError(t, unix.Pipe2(fds[:], unix.O_CLOEXEC))
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

// tempFile returns a file of n bytes that ends with the test.
func tempFile(t testing.TB, dir string, n int64) int {
	f, err := os.CreateTemp(dir, "uring")
	require.NoError(t, err)
	require.NoError(t, f.Truncate(n))
	t.Cleanup(func() {
		f.Close()
		os.Remove(f.Name())
	})
	return int(f.Fd())
}
