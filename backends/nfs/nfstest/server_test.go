package nfstest

import (
	"net"
	"slices"
	"strings"
	"testing"
)

// Goal: what is not committed is lost in a crash, what is committed is not, and the verifier tells. Method: three writes
// of each kind, one of them covered by a COMMIT of its bytes only, then a crash.
func TestCrashLosesWhatIsNotCommitted(t *testing.T) {
	s := Start(t, Options{})
	d := openDisk(t, s)
	_, committed, before := d.write(0, "unstable", Unstable)
	if committed != Unstable {
		t.Error("an unstable write is more than that")
	}
	if _, committed, _ = d.write(100, "file", FileSync); committed != FileSync {
		t.Error("a stable write is less than that")
	}
	d.write(200, "covered and not", Unstable)
	if v := d.commit(200, 7); v != before {
		t.Error("the verifier changed without a crash")
	}
	if got := s.UnstableBytes(diskPath); got != int64(len("unstable")+len(" and not")) {
		t.Errorf("%d bytes are unstable", got)
	}

	s.Crash(LoseAll)
	d.ended()
	if _, err := net.Dial("tcp", s.endpoint(s.NFSPort())); err == nil {
		t.Error("a crashed server accepts")
	}
	s.Restart()
	d = openDisk(t, s)
	got, _ := d.read(0, 300)
	want := strings.Repeat("\x00", 100) + "file" + strings.Repeat("\x00", 96) + "covered" + strings.Repeat("\x00", 93)
	if got != want {
		t.Errorf("after the crash: %q", got)
	}
	if v := d.commit(0, 0); v == before {
		t.Error("the verifier is the old one")
	}
}

// Goal: a crash may leave a part, sector by sector, and the same seed the same part. Method: 64 sectors are written and
// lost under a seed, twice.
func TestCrashLeavesSectors(t *testing.T) {
	var kept [2]string
	for i := range kept {
		s := Start(t, Options{Seed: 7})
		d := openDisk(t, s)
		d.write(0, strings.Repeat("x", 64*sectorBytes), Unstable)
		s.LoseUnstable(LoseSome)
		kept[i], _ = d.read(0, 64*sectorBytes)
		for at := 0; at < len(kept[i]); at += sectorBytes {
			if sector := kept[i][at : at+sectorBytes]; sector != strings.Repeat(sector[:1], sectorBytes) {
				t.Fatalf("the sector at %d is torn", at)
			}
		}
	}
	if n := strings.Count(kept[0], "x"); kept[0] != kept[1] || n == 0 || n == 64*sectorBytes {
		t.Errorf("%d bytes are left, the same: %v", n, kept[0] == kept[1])
	}
}

// Goal: the set of unstable bytes is right whatever is added and cut. Method: random spans, compared with a bitmap.
func TestRangesAgreeWithABitmap(t *testing.T) {
	const size, seed = 200, 1
	chance := newChance(seed)
	var set ranges
	var bitmap [size]bool
	for step := range 5000 {
		begin := chance.Int64N(size)
		s := span{begin, begin + chance.Int64N(min(30, size-begin)+1)}
		isAdd := chance.IntN(2) == 0
		if isAdd {
			set = set.add(s)
		} else {
			set, _ = set.cut(s)
		}
		for i := s.begin; i < s.end; i++ {
			bitmap[i] = isAdd
		}
		var want ranges
		for i := range bitmap {
			if bitmap[i] {
				want = want.add(span{int64(i), int64(i) + 1})
			}
		}
		if !slices.Equal(set, want) {
			t.Fatalf("seed %d step %d: %v, want %v", seed, step, set, want)
		}
	}
}

// Goal: the port mapper tells the ports, and each program is at its own only. Method: GETPORT for each, and calls of the
// wrong program, version and procedure.
func TestProgramsAndPorts(t *testing.T) {
	s := Start(t, Options{})
	c := dial(t, s, progPortmap)
	for prog, port := range map[uint32]int{progNFS: s.NFSPort(), progMount: s.MountPort(), 100021: 0} {
		c.send(3, func(w *writer) { w.u32(prog, 3, protocolTCP, 0) })
		if _, _, r := c.receive(); r.u32() != uint32(port) {
			t.Errorf("program %d is not at %d", prog, port)
		}
	}
	for _, wrong := range []struct {
		prog, vers, proc uint32
		want             AcceptStat
	}{{progNFS, 3, 0, ProgUnavail}, {progPortmap, 3, 0, ProgMismatch}, {progPortmap, 2, 77, ProcUnavail}} {
		c.sendAs(0, wrong.prog, wrong.vers, wrong.proc, nil)
		if _, stat, _ := c.receive(); stat != wrong.want {
			t.Errorf("%v gives %d", wrong, stat)
		}
	}
}

// Goal: the server can refuse, be silent, and drop, and come back. Method: each, seen by a client.
func TestOutages(t *testing.T) {
	s := Start(t, Options{})
	d := openDisk(t, s)
	s.Refuse()
	if _, err := net.Dial("tcp", s.endpoint(s.NFSPort())); err == nil {
		t.Error("a refusing server accepts")
	}
	d.write(0, "old connections stay", Unstable)
	s.Accept()

	s.Silence()
	writes := s.Calls(Write)
	d.send(numberWrite, d.writeArgs(0, "while silent", Unstable))
	other := openSocket(t, s)
	other.Close()
	if s.Calls(Write) != writes {
		t.Error("a silent server executes")
	}
	s.Speak()
	if xid, _, _ := d.receive(); xid != d.xid {
		t.Error("another reply")
	}
	s.DropConnections(true)
	d.ended()
	s.AwaitConnections(0)
	if got, _ := openDisk(t, s).read(0, 12); got != "while silent" {
		t.Errorf("%q", got)
	}
}

func openSocket(t *testing.T, s *Server) net.Conn {
	t.Helper()
	socket, err := net.Dial("tcp", s.endpoint(s.NFSPort()))
	if err != nil {
		t.Fatal(err)
	}
	return socket
}
