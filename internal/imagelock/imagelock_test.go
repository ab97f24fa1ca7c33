package imagelock

import (
	"iter"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

func offsets(bytes iter.Seq[Byte]) (all []int64) {
	for b := range bytes {
		all = append(all, b.Offset)
	}
	return all
}

// Goal: each use of a disk locks QEMU's bytes and looks for those that are against it, in QEMU's order, within the span that is given back as one. Method: a
// table, and everything that can be locked.
func TestBytes(t *testing.T) {
	for _, c := range []struct {
		name           string
		set            Set
		locks, against []int64
	}{
		{"as a running QEMU", Use{}.Set(), []int64{100, 101, 201, 203}, []int64{200, 201, 101, 103}},
		{"read-only", Use{ReadOnly: true}.Set(), []int64{100, 201, 203}, []int64{200, 101, 103}},
		{"as qemu-nbd", Use{ShareRW: true}.Set(), []int64{100, 101, 203}, []int64{200, 201, 103}},
		{"the file of an image", Use{Grows: true}.Set(), []int64{100, 101, 201, 103, 203}, []int64{200, 201, 101, 203, 103}},
		{"read-only, and would grow", Use{ReadOnly: true, Grows: true}.Set(), []int64{100, 201, 203}, []int64{200, 101, 103}},
		{"nothing", NewSet(0, blockcore.PermAll), nil, nil},
		{"more", Use{ReadOnly: true, ShareRW: true}.Set().With(Set{Uses: blockcore.PermResize}), []int64{100, 103, 203}, []int64{200, 203, 103}},
		{"less", Use{}.Set().Without(Use{ReadOnly: true}.Set()), []int64{101}, []int64{201}},
	} {
		require.Equal(t, c.locks, offsets(c.set.Bytes()), c.name)
		require.Equal(t, c.against, offsets(c.set.Against()), c.name)
	}
	all := offsets(NewSet(blockcore.PermAll, 0).Bytes())
	require.Equal(t, []int64{100, 200, 101, 201, 102, 202, 103, 203}, all)
	require.EqualValues(t, First, all[0])
	require.EqualValues(t, First+SpanBytes-1, all[len(all)-1])
}

// Goal: a conflict is told in QEMU's words, with who is in the way where a server says so, and is EAGAIN. Method: a table.
func TestConflicts(t *testing.T) {
	e := &ConflictError{Image: "a.img", Permission: blockcore.PermWrite, Denied: true}
	require.EqualError(t, e, `Failed to get "write" lock. Is another process using the image [a.img]?`)
	require.ErrorIs(t, e, syscall.EAGAIN)
	e.Denied, e.Holder = false, "lock owner 0x1"
	require.EqualError(t, e, `Failed to get shared "write" lock: the server says that lock owner 0x1 has the file`)
	require.Equal(t, "Is another process using the image [a.img]?", e.Hint())
}

// Goal: modes have QEMU's names. Method: each name, and one that is none.
func TestModes(t *testing.T) {
	for m, name := range modeNames {
		parsed, err := ParseMode(name)
		require.NoError(t, err)
		require.True(t, parsed == Mode(m) && parsed.Known() && parsed.String() == name)
	}
	_, err := ParseMode("maybe")
	require.EqualError(t, err, `locking mode "maybe": use auto, on or off`)
	require.False(t, Mode(len(modeNames)).Known())
}
