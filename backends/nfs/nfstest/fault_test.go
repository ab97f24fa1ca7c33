package nfstest

import (
	"encoding/binary"
	"io"
	"testing"
	"time"
)

// Goal: statuses, short counts and verifiers come as the rule says and as often. Method: rules on READ, WRITE and COMMIT.
func TestFaultsOfResults(t *testing.T) {
	s := Start(t, Options{})
	d := openDisk(t, s)
	disarm := s.Inject(Rule{Proc: Read, First: 2, Count: 2, Fault: Fault{Status: Jukebox}})
	for i, want := range []Status{OK, Jukebox, Jukebox, OK} {
		if got, _ := d.call(numberRead, d.readArgs(0, 8)); got != want {
			t.Errorf("read %d: %v, want %v", i, got, want)
		}
	}
	if met := disarm(); met != 2 {
		t.Errorf("%d calls met the fault", met)
	}

	s.Inject(Rule{Proc: Write, Fault: Fault{Short: 3, ClaimUnstable: true, Verifier: 99}})
	count, committed, verifier := d.write(0, "abcdef", FileSync)
	if count != 3 || committed != Unstable || verifier != 99 {
		t.Errorf("count %d, committed %d, verifier %d", count, committed, verifier)
	}
	s.Inject(Rule{Proc: Read, Fault: Fault{Short: 2}})
	if got, isEnd := d.read(0, 6); got != "ab" || isEnd {
		t.Errorf("%q, end %v", got, isEnd)
	}
	s.Inject(Rule{Proc: Write, Fault: Fault{StatusAfter: NoSpc}})
	if got, _ := d.call(numberWrite, d.writeArgs(0, "x", Unstable)); got != NoSpc {
		t.Errorf("%v", got)
	}
	if got, _ := d.read(0, 4); got != "xbc\x00" {
		t.Errorf("%q", got)
	}
}

// Goal: a connection breaks before or after a call is executed, or amid the reply, as the rule says. Method: a write each.
func TestFaultsOfConnections(t *testing.T) {
	for moment, want := range map[Moment]string{BeforeExecuting: "\x00", AfterExecuting: "x", AmidReply: "x"} {
		s := Start(t, Options{})
		d := openDisk(t, s)
		s.Inject(Rule{Proc: Write, Fault: Fault{Drop: moment}})
		d.send(numberWrite, d.writeArgs(0, "x", FileSync))
		rest, _ := io.ReadAll(d.socket)
		if (len(rest) > 0) != (moment == AmidReply) {
			t.Errorf("moment %d: % x", moment, rest)
		}
		if got := string(s.Stable(diskPath)[:1]); got != want {
			t.Errorf("moment %d: %q", moment, got)
		}
	}
}

// Goal: replies come in another order, twice, late, or with another xid. Method: reads with such rules, by their xids.
func TestFaultsOfReplies(t *testing.T) {
	s := Start(t, Options{})
	d := openDisk(t, s)
	hold := make(chan struct{})
	s.Inject(Rule{Proc: Read, Fault: Fault{Behind: 2}})
	s.Inject(Rule{Proc: Read, Fault: Fault{Again: 1}})
	s.Inject(Rule{Proc: Read, Fault: Fault{NoReply: true}})
	s.Inject(Rule{Proc: Read, Fault: Fault{Hold: hold}})
	s.Inject(Rule{Proc: Read, Fault: Fault{FlipXID: 1 << 31}})
	s.Inject(Rule{Proc: Read, Fault: Fault{Delay: time.Millisecond}})
	var sent [6]uint32
	for i := range sent {
		sent[i] = d.send(numberRead, d.readArgs(0, 8))
	}
	for _, want := range []uint32{sent[1], sent[1], sent[0], sent[4] ^ 1<<31, sent[5]} {
		if got, _, _ := d.receive(); got != want {
			t.Errorf("a reply to %x, want %x", got, want)
		}
	}
	close(hold)
	if got, _, _ := d.receive(); got != sent[3] {
		t.Errorf("a reply to %x, want %x", got, sent[3])
	}
}

// Goal: bytes are damaged as the rule says. Method: what comes for a read is looked at as it is.
func TestFaultsOfBytes(t *testing.T) {
	s := Start(t, Options{})
	d := openDisk(t, s)
	next := func(f Fault, n int) []byte {
		t.Helper()
		s.Inject(Rule{Proc: Read, Fault: f})
		d.send(numberRead, d.readArgs(0, 100))
		got := make([]byte, n)
		if _, err := io.ReadFull(d.socket, got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	whole := 24 + 4 + 4 + 84 + 4 + 4 + 4 + 100 // header, status, attributes, count, eof, length, data
	mark := func(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
	if got := next(Fault{CutTo: 30}, 34); mark(got) != lastFragment|30 {
		t.Errorf("cut: % x", got)
	}
	got := next(Fault{FragmentBytes: 100}, whole+3*4)
	if mark(got) != 100 || mark(got[104:]) != 100 || mark(got[208:]) != lastFragment|uint32(whole-200) {
		t.Errorf("fragments: % x", got)
	}
	if got := next(Fault{Mangle: AbsurdLength}, 4+whole); mark(got) != 0xffffffff {
		t.Errorf("length: % x", got[:4])
	}
	if got := next(Fault{Mangle: Overpromise(8)}, 4+whole); mark(got) != lastFragment|uint32(whole+8) {
		t.Errorf("length: % x", got[:4])
	}
	if got := next(Fault{Mangle: GarbageAfterXID(3)}, 4+whole); mark(got) != lastFragment|uint32(whole) || mark(got[4:]) != d.xid {
		t.Errorf("garbage: % x", got[:8])
	}
	if got := next(Fault{Endless: true}, 4000); mark(got) != 0 || mark(got[3996:]) != 0 {
		t.Errorf("endless: % x", got[:8])
	}
}

// Goal: calls fail below the program as the rule says. Method: the replies of a denied call, of credentials that are too
// weak, and of a program that has another version.
func TestFaultsBelowTheProgram(t *testing.T) {
	s := Start(t, Options{})
	d := openDisk(t, s)
	for _, c := range []struct {
		fault Fault
		want  []uint32 // what follows xid and REPLY
	}{
		{Fault{Deny: TooWeak}, []uint32{1, 1, uint32(TooWeak)}},
		{Fault{Deny: RPCMismatch}, []uint32{1, 0, 2, 2}},
		{Fault{Accept: ProgMismatch}, []uint32{0, 0, 0, uint32(ProgMismatch), 4, 4}},
		{Fault{Accept: SystemErr}, []uint32{0, 0, 0, uint32(SystemErr)}},
	} {
		s.Inject(Rule{Proc: Read, Fault: c.fault})
		d.send(numberRead, d.readArgs(0, 8))
		record, err := readRecord(d.socket)
		var want writer
		want.u32(d.xid, 1)
		want.u32(c.want...)
		if err != nil || string(record) != string(want.bytes) {
			t.Errorf("%+v: % x, want % x", c.fault, record, want.bytes)
		}
	}
}

// Goal: a rule can crash the server in the middle of a call, and bring it back. Method: a write after which it crashes.
func TestCrashInTheMiddleOfACall(t *testing.T) {
	s := Start(t, Options{})
	d := openDisk(t, s)
	up := make(chan struct{})
	s.Inject(Rule{Proc: Write, Fault: Fault{After: func() {
		s.Crash(LoseAll)
		s.Restart()
		close(up)
	}}})
	d.send(numberWrite, d.writeArgs(0, "x", Unstable))
	d.ended()
	<-up // the client hears of the crash before the server is back
	if got, _ := openDisk(t, s).read(0, 1); got != "\x00" {
		t.Errorf("%q", got)
	}
}
