package wire

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: calls of the lock manager are on the wire what XNFS and RFC 1813, appendix II, say. Method: bytes worked out by hand.
func TestLockCalls(t *testing.T) {
	owner := &LockOwner{Caller: "host", Name: []byte("me@it"), Number: 0x40000001}
	lock := "00000004 686f7374 00000003 aabbcc00 00000005 6d654069 74000000 40000001 0000000000000064 0000000000000001"
	h := Handle{0xaa, 0xbb, 0xcc}
	require.Equal(t, unhex(t, "00000004 00000001 00000000 00000000"+lock+"00000001 00000000"), AppendLock(nil, owner, h, 100, 1, true))
	require.Equal(t, unhex(t, "00000004 00000001 00000000 00000000"+lock+"00000000 00000000"), AppendLock(nil, owner, h, 100, 1, false))
	require.Equal(t, unhex(t, "00000004 00000001 00000001"+lock), AppendLockTest(nil, owner, h, 100, 1))
	require.Equal(t, unhex(t, "00000004 00000001"+lock), AppendUnlock(nil, owner, h, 100, 1))
	call := AppendCall(nil, 1, ProgramNLM, uint32(LockNMLock), nil)
	require.Equal(t, unhex(t, "000186b5 00000004 00000016"), call[MarkBytes+12:][:12])
}

// lockReplies are results of NM_LOCK and TEST.
var lockReplies = []struct {
	name, hex string
	stat      LockStat
	holder    LockHolder
}{
	{"granted", "00000004 00000001 00000000", LockGranted, LockHolder{}},
	{"no cookie", "00000000 00000004", LockGrace, LockHolder{}},
	{"denied, with a name", "00000000 00000001 00000000 40000007 00000003 61626300 0000000000000064 0000000000000001",
		LockDenied, LockHolder{Number: 0x40000007, Name: []byte("abc")}},
	{"denied, without", "00000000 00000001 00000001 00000007 00000000 0000000000000064 0000000000000000",
		LockDenied, LockHolder{Exclusive: true, Number: 7, Name: []byte{}}},
	{"unknown status", "00000000 00000063", 99, LockHolder{}},
}

// Goal: results of the lock manager are read as they are meant, and no other way. Method: a table, whole and cut short at every place.
func TestLockReplies(t *testing.T) {
	for _, c := range lockReplies {
		t.Run(c.name, func(t *testing.T) {
			all := unhex(t, c.hex)
			stat, holder, err := ParseLockTest(all)
			require.NoError(t, err)
			require.Equal(t, c.stat, stat)
			require.Equal(t, c.holder, holder)
			stat, err = ParseLock(all)
			require.NoError(t, err)
			require.Equal(t, c.stat, stat)
			for n := range all {
				_, _, err := ParseLockTest(all[:n])
				require.ErrorIs(t, err, ErrMalformed, "%d bytes", n)
			}
		})
	}
	require.ErrorIs(t, &LockStatError{LockNoLocks}, syscall.ENOLCK)
	require.EqualError(t, &LockStatError{LockFailed}, "NLM4_FAILED")
	require.ErrorIs(t, &LockStatError{99}, syscall.EIO)
	require.Equal(t, "NLM status 99", LockStat(99).String())
}

// Goal: no reply of a lock manager makes a parser panic or keep more than it was given. Method: fuzzing.
func FuzzLockReply(f *testing.F) {
	for _, c := range lockReplies {
		f.Add(unhex(f, c.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseLock(b)
		stat, holder, err := ParseLockTest(b)
		if err == nil && stat != LockDenied && (holder.Number != 0 || holder.Name != nil) {
			t.Fatalf("%v has a holder", stat)
		}
		if len(holder.Name) > lockObjectBytesMax {
			t.Fatalf("a name of %d bytes", len(holder.Name))
		}
	})
}
