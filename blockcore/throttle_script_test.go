package blockcore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// throttleScript runs requests through a group on the fake loop and writes down when they run: "100ms a: r3" says that the read r3 of
// member a ran 100 ms after the script began. Time passes only in pass.
type throttleScript struct {
	t       testingT
	loop    *fakeLoop
	group   *ThrottleGroup
	members []*ThrottleMember
	begin   time.Duration
	lines   []string
	ran     func(m *ThrottleMember, d ThrottleDirection, bytes int64, name string) // instead of a line; nil = a line
}

// testingT is a test, or a run of one by rapid.
type testingT interface {
	require.TestingT
	Helper()
}

// newThrottleScript makes a group with limits and the members named.
func newThrottleScript(t *testing.T, c ThrottleConfig, names ...string) *throttleScript {
	s := &throttleScript{t: t, loop: newFakeLoop(t, ContextOptions{PollMax: -1})}
	t.Cleanup(func() { s.releaseAll() })
	s.reset(t, c, names...)
	return s
}

// reset begins anew with another group.
func (s *throttleScript) reset(t testingT, c ThrottleConfig, names ...string) {
	s.t, s.begin, s.lines, s.members = t, s.loop.Now(), nil, nil
	s.group = newThrottleGroup(s.loop.AioContext.Name(), s.loop.time)
	require.NoError(t, s.group.Configure(c))
	for _, name := range names {
		s.join(name)
	}
}

func (s *throttleScript) join(name string) *ThrottleMember {
	m := s.group.Join(s.loop.AioContext, name)
	s.members = append(s.members, m)
	return m
}

// releaseAll has every request run, so that the loop can end.
func (s *throttleScript) releaseAll() {
	for _, m := range s.members {
		m.Suspend()
	}
	s.step(0)
}

// ask has a Task for each of the names that asks for its turn: "r" and "w" begin the names of reads and writes.
func (s *throttleScript) ask(m *ThrottleMember, bytes int64, names ...string) {
	s.on(func() {
		for _, name := range names {
			d := ThrottleRead
			if name[0] == 'w' {
				d = ThrottleWrite
			}
			s.loop.Spawn(BodyFunc(func(t *Task) {
				m.Admit(t, d, bytes)
				if s.ran != nil {
					s.ran(m, d, bytes, name)
					return
				}
				s.note("%s: %s", m.name, name)
			}))
		}
	})
}

// on runs fn on the loop, and everything that follows from it at once.
func (s *throttleScript) on(fn func()) {
	s.loop.Post(fn)
	s.step(0)
}

// step lets d pass, and the loop work until it sleeps.
func (s *throttleScript) step(d time.Duration) {
	s.loop.Post(func() {}) // the loop shall not look how long it has slept
	s.loop.resume(max(d, 0))
}

// pass lets d pass, stopping at each timer on the way.
func (s *throttleScript) pass(d time.Duration) {
	end := s.loop.Now() + d
	for {
		at, ok := s.loop.timers.next()
		if !ok || at > end {
			break
		}
		s.step(at - s.loop.Now())
	}
	s.step(end - s.loop.Now())
}

// passAll lets time pass until no timer is left.
func (s *throttleScript) passAll() {
	for len(s.loop.timers) > 0 {
		at, _ := s.loop.timers.next()
		s.step(at - s.loop.Now())
	}
}

func (s *throttleScript) note(format string, args ...any) {
	at := (s.loop.Now() - s.begin).Round(time.Millisecond)
	s.lines = append(s.lines, fmt.Sprintf("%v ", at)+fmt.Sprintf(format, args...))
}

// expect compares the transcript with what is wanted, one line each, and forgets it.
func (s *throttleScript) expect(golden string) {
	s.t.Helper()
	var want []string
	for _, line := range strings.Split(strings.TrimSpace(golden), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			want = append(want, line)
		}
	}
	require.Equal(s.t, strings.Join(want, "\n"), strings.Join(s.lines, "\n"))
	s.lines = nil
}

// expectIdle demands that nobody waits and no timer is armed, in the group or on the loop.
func (s *throttleScript) expectIdle() {
	s.t.Helper()
	for _, m := range s.members {
		require.Zero(s.t, m.Waiting(), m.name)
	}
	require.Empty(s.t, armedTimers(s.group))
	require.Empty(s.t, s.loop.timers, "a timer is armed on the loop and nobody waits")
}

// armedTimers names the members whose timers are armed, reads first.
func armedTimers(g *ThrottleGroup) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for d := range throttleDirections {
		if a := g.turns[d].timer; a != nil {
			names = append(names, fmt.Sprintf("%v %s", d, a.member.name))
		}
	}
	return names
}
