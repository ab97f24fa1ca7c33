package nfs

import (
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// fuzzCalls are the calls that wait when bytes arrive, with the transaction ids 0x100, 0x201, 0x302 and 0x403.
var fuzzCalls = []struct {
	proc wire.Proc
	n    int
}{{wire.ProcRead, 5000}, {wire.ProcWrite, 600}, {wire.ProcCommit, 0}, {wire.ProcSetattr, 0}}

// Goal: whatever a server sends, nothing panics, hangs, or writes anywhere but into the data of a READ. Method: fuzzing of what comes over a socket on which calls wait; buffers have a margin, which
// is looked at.
func FuzzRecords(f *testing.F) {
	const ok = "00000001 00000000 00000000 00000000 00000000 00000000"
	for _, seed := range []string{
		"80000034 00000100" + ok + "00000000 00000004 00000001 00000004 aabbccdd", // READ, cut by the file's end
		"00000002 0000 80000032 0100" + ok + "00000000 00000004 00000000 00000004 aabbccdd",
		"80000034 00000201" + ok + "00000000 00000000 00000258 00000000 0102030405060708", // WRITE
		"8000002c 00000302" + ok + "00000000 00000000 0102030405060708",                   // COMMIT
		"80000020 00000403" + ok + "00002718",                                             // SETATTR: JUKEBOX
		"80000018 00000100 00000001 00000000 00000000 00000000 00000005",
		"00000000 00000000 80000004 00000100", "ffffffff 00000100",
	} {
		f.Add(unhexRecord(f, seed))
	}
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "fuzz", Engine: blockcore.EngineThreads})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(ctx.Close)
	f.Fuzz(func(t *testing.T, input []byte) {
		if err := ctx.Do(func(task *blockcore.Task) error { return feed(task, input[:min(len(input), 16<<10)]) }); err != nil {
			t.Fatal(err)
		}
	})
}

func unhexRecord(f *testing.F, text string) []byte {
	var digits []byte
	for _, c := range []byte(text) {
		if c != ' ' {
			digits = append(digits, c)
		}
	}
	b, err := hex.DecodeString(string(digits))
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// margin is what no reply may touch.
const margin = 64

func feed(t *blockcore.Task, input []byte) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[1])
	file := newFile(&Options{Host: "h", Path: "/e/f"}, &dialer{}, wire.Found{Handle: wire.Handle("handle")}, wire.Sizes{ReadMax: 8192, WriteMax: 8192}, pair[0])
	file.enter(t)
	c := file.conns[0]
	c.retry = file.ctx.After(time.Hour, func() {}) // nothing is connected anew
	g := file.calls.takeGroup(nil)
	var buffers [][]byte
	for _, k := range fuzzCalls {
		buf := t.Buffers().Get(k.n + 2*margin)
		for i := range buf {
			buf[i] = 0xee
		}
		buffers = append(buffers, buf)
		file.submit(t, g, k.proc, buf[margin:margin+k.n], 0, wire.Unstable)
	}
	c.send()
	if _, err := unix.Write(pair[1], input); err != nil && len(input) > 0 {
		return err
	}
	for c.fd >= 0 && c.receive() {
	}
	for _, k := range file.calls.all {
		if k.state != callFree {
			file.finish(k, errSilent)
		}
	}
	if g.pending != 0 {
		err = errors.New("calls are counted wrongly")
	}
	for n, buf := range buffers {
		for i, b := range buf {
			inside := n == 0 && i >= margin && i < margin+fuzzCalls[n].n
			if b != 0xee && !inside {
				err = errors.New("a reply was written to where it does not belong")
			}
		}
		t.Buffers().Put(buf)
	}
	c.retry.Stop()
	return errors.Join(err, file.Close(t))
}
