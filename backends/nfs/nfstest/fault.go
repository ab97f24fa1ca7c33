package nfstest

import "time"

// Moment is when a connection breaks during a call.
type Moment int

// The moments.
const (
	Never           Moment = iota
	BeforeExecuting        // the call is lost
	AfterExecuting         // the reply is lost
	AmidReply              // half of the reply's bytes are sent
)

// Rule says which calls meet a fault.
type Rule struct {
	Proc Proc // AnyProc for all
	// First is the first call of Proc, counted from one since Inject, that meets the fault; 0 is 1.
	First int
	// Count is how many calls meet it: 0 is one, a negative number all from First on.
	Count int
	// When, if given, looks at each call of Proc; those that it turns down are not counted. It must not call the server.
	When func(Call) bool
	Fault
}

// Fault is what happens to a call. The zero value is nothing out of the ordinary; what is set is done together.
type Fault struct {
	// Before runs before the call is executed, After afterwards and before the reply. They may call the server: Crash,
	// ChangeVerifier, Inject.
	Before, After func()

	// Status answers with this status and without executing.
	Status Status
	// StatusAfter answers with this status though the call was executed.
	StatusAfter Status
	// Accept and Deny answer below the program, without executing.
	Accept AcceptStat
	Deny   AuthStat

	// Short limits a READ or a WRITE to so many bytes, if it is above zero. ShortToNothing limits them to none.
	Short          int
	ShortToNothing bool
	// Verifier is the verifier that a WRITE or COMMIT replies with, if it is not zero; the server keeps its own.
	Verifier uint64
	// Stable takes a WRITE to stable storage, and says so, whatever was asked for.
	Stable bool
	// ClaimUnstable has a WRITE say that it is unstable, whatever it was.
	ClaimUnstable bool

	// Drop closes the connection; with Reset the client finds it reset and not closed.
	Drop  Moment
	Reset bool
	// NoReply executes and never answers.
	NoReply bool
	// Delay is how long the reply is kept. Other calls go on.
	Delay time.Duration
	// Behind keeps the reply until so many later replies of the connection have been sent.
	Behind int
	// Hold keeps the reply until the channel is closed.
	Hold <-chan struct{}
	// Again sends the reply so many times more.
	Again int

	// FlipXID is a mask that the reply's xid is changed by: a reply to nothing that was asked.
	FlipXID uint32
	// CutTo leaves so many bytes of the message, with a record mark that fits, if it is above zero.
	CutTo int
	// FragmentBytes sends the reply in fragments of at most so many bytes, if it is above zero.
	FragmentBytes int
	// Endless sends fragments of FragmentBytes instead of the reply, none of which is the last, until the client closes the
	// connection. They are empty if FragmentBytes is zero.
	Endless bool
	// Mangle changes the bytes that are sent, record marks among them.
	Mangle func(framed []byte) []byte
}

// Garbage is a Mangle that leaves the record mark and fills the rest with bytes from a seed.
func Garbage(seed uint64) func([]byte) []byte {
	return func(framed []byte) []byte {
		chance := newChance(seed)
		for i := 4; i < len(framed); i++ {
			framed[i] = byte(chance.Uint32())
		}
		return framed
	}
}

// GarbageAfterXID is a Mangle that leaves the record mark and the xid.
func GarbageAfterXID(seed uint64) func([]byte) []byte {
	return func(framed []byte) []byte {
		whole := Garbage(seed)
		kept := append([]byte(nil), framed[:min(8, len(framed))]...)
		framed = whole(framed)
		copy(framed, kept)
		return framed
	}
}

// AbsurdLength is a Mangle that has the record mark promise two gigabytes.
func AbsurdLength(framed []byte) []byte {
	copy(framed, []byte{0xff, 0xff, 0xff, 0xff})
	return framed
}

// Overpromise is a Mangle that has the record mark promise more bytes than the reply has: what follows is eaten.
func Overpromise(moreBytes int) func([]byte) []byte {
	return func(framed []byte) []byte {
		n := len(framed) - 4 + moreBytes
		copy(framed, []byte{0x80 | byte(n>>24), byte(n >> 16), byte(n >> 8), byte(n)})
		return framed
	}
}

// armed is a rule and how many calls it has seen.
type armed struct {
	// Immutable.
	rule Rule

	// Guarded by Server.mu.
	seen, met int
}

// meets counts a call, and says whether it meets the fault.
func (a *armed) meets(call Call) bool {
	r := a.rule
	if r.Proc != AnyProc && r.Proc != call.Proc || r.When != nil && !r.When(call) {
		return false
	}
	a.seen++
	if a.seen < max(1, r.First) || r.Count >= 0 && a.met >= max(1, r.Count) {
		return false
	}
	a.met++
	return true
}

// Inject arms a rule. Of several rules that meet a call the one that was armed first decides; the others do not count
// the call. The function that is returned disarms it, and tells how many calls it met.
func (s *Server) Inject(rule Rule) (disarm func() int) {
	a := &armed{rule: rule}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = append(s.rules, a)
	return func() int { return s.disarm(a) }
}

func (s *Server) disarm(a *armed) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, have := range s.rules {
		if have == a {
			s.rules = append(s.rules[:i:i], s.rules[i+1:]...)
			break
		}
	}
	return a.met
}

// Heal disarms all rules.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = nil
}

// fault finds what a call meets. The caller holds mu.
func (s *Server) fault(call Call) Fault {
	for _, a := range s.rules {
		if a.meets(call) {
			return a.rule.Fault
		}
	}
	return Fault{}
}
