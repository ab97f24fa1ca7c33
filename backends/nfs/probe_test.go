package nfs

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

// told returns the next thing that is told of the server's health.
func (r *rig) told() Health {
	r.t.Helper()
	select {
	case h := <-r.health:
		return h
	case <-time.After(patienceMax):
		require.FailNow(r.t, "nothing is told of the server's health")
		return Health{}
	}
}

// Goal: a file that nobody uses any more after an outage finds out that the server is back, tells of it, and is quiet then. Method: a read times out, with a server that is silent,
// refuses connections, or is gone and silent when it comes back; later it is well, and nothing is asked of the file. Then it is closed, with such a call under way too.
func TestIdleFileNoticesTheEndOfAnOutage(t *testing.T) {
	for name, c := range map[string]struct{ fail, mend func(s *nfstest.Server) }{
		"silent":  {(*nfstest.Server).Silence, (*nfstest.Server).Speak},
		"refused": {func(s *nfstest.Server) { s.Refuse(); s.DropConnections(true) }, (*nfstest.Server).Accept},
		"silent, then gone": {func(s *nfstest.Server) { s.Silence() }, func(s *nfstest.Server) {
			s.Refuse()
			s.DropConnections(false)
			s.Speak()
			s.Accept()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nfstest.Options{}, func(o *Options) { o.Timeout = 100 * time.Millisecond })
			for range 2 {
				c.fail(r.server)
				r.timesOut(r.reading(0, make([]byte, 100)))
				require.False(t, r.told().OK)
				c.mend(r.server)
				require.True(t, r.told().OK)
				require.True(t, r.file.Health().OK)
				nulls := r.server.Calls(nfstest.Null)
				require.Positive(t, nulls)
				r.check(0, make([]byte, 100))
				require.NoError(t, r.do(func(t *blockcore.Task) error { t.Sleep(50 * time.Millisecond); return nil }))
				require.Equal(t, nulls, r.server.Calls(nfstest.Null), "a file that is well asks nothing")
			}
			c.fail(r.server)
			r.timesOut(r.reading(0, make([]byte, 100)))
			require.NoError(t, r.do(func(t *blockcore.Task) error {
				for r.file.probing == nil {
					t.Sleep(time.Millisecond)
				}
				return nil
			}))
			begin := time.Now()
			r.close()
			require.Less(t, time.Since(begin), patienceMax/2)
		})
	}
}

// Goal: while requests time out, why there is no connection is still said. Method: a server that is gone.
func TestTimeoutsDoNotHideTheReason(t *testing.T) {
	r := newRig(t, nfstest.Options{}, soft)
	r.server.Refuse()
	r.server.DropConnections(true)
	for range 3 {
		r.timesOut(r.reading(0, make([]byte, 100)))
	}
	require.Contains(t, r.file.Health().Why, "refused")
	r.server.Accept()
}

// Goal: a server that says "try again later" for long, or answers all calls but one, is told of as one that does not answer, with what it is, and so is the end. Method: the clock in hand:
// a READ that meets that while others are answered.
func TestOneRequestThatWaitsIsToldOf(t *testing.T) {
	for name, want := range map[string]string{"put off": "READ is put off (NFS3ERR_JUKEBOX", "passed over": "READ is not answered for"} {
		t.Run(name, func(t *testing.T) {
			simScript(t, 0, 0, func(c *simThread) {
				w := c.w
				if name == "put off" {
					w.putOff = true
				} else {
					w.passOver = 1
				}
				done := c.readBehind()
				c.pause(time.Second)
				w.putOff = false
				for since := w.Now(); w.Now()-since < quietMax-2*time.Second; c.pause(time.Second) {
					w.putOff = false
					require.NoError(t, c.read())
					w.putOff = name == "put off"
				}
				require.False(t, w.sick, "it is told of too early")
				for range 3 {
					c.pause(time.Second)
				}
				require.True(t, w.sick, "it is not told of")
				require.Contains(t, w.file.Health().Why, want)
				w.putOff = false
				for since := w.Now(); w.sick && w.Now()-since < 2*silenceMost; c.pause(10 * time.Second) {
					require.NoError(t, c.read())
				}
				require.False(t, w.sick, "its end is not told of")
				require.NoError(t, <-done)
			})
		})
	}
}

// Goal: a server that puts calls off, or passes some over, for longer than a timeout that is short is told of once, and once as well when that is over, however many requests time out
// and are answered meanwhile. Method: the clock in hand: READs of both kinds in turn; then it does neither any more, and the file is used, or not.
func TestTimeoutsOfOneOutageAreToldOnce(t *testing.T) {
	for _, passes := range []bool{false, true} {
		for _, used := range []bool{false, true} {
			simScript(t, 2*time.Second, 0, func(c *simThread) {
				w, told := c.w, 0
				w.file.onHealth = func(h Health) { told++; w.health(h) }
				fail := func() {
					if passes {
						w.passOver = 1
					}
					w.putOff = !passes
					done := c.readBehind()
					c.pause(time.Second)
					w.putOff = false
					if passes {
						require.NoError(t, c.read())
					}
					w.putOff = !passes
					c.pause(3 * time.Second)
					require.ErrorIs(t, <-done, syscall.ETIMEDOUT)
					w.putOff = false
				}
				for range 20 {
					fail()
					require.NoError(t, c.read())
					require.True(t, w.sick)
					require.Equal(t, 1, told)
				}
				for since := w.Now(); w.sick && w.Now()-since < quietMax+2*time.Second; c.pause(time.Second) {
					if used {
						require.NoError(t, c.read())
					}
				}
				require.False(t, w.sick)
				require.Equal(t, 2, told)
			})
		}
	}
}
