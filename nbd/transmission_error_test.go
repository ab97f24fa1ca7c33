package nbd

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: an error of the backend is an error reply in few words, and the connection goes on (CH-7, CH-13, CH-14, CH-17, SR-3, SR-4, CH-10,
// CH-11, CH-12, ERR-1, GEN-9), and one for the whole request, so that no offset can be wrong (CH-8). Method: each operation of the disk fails once, in each style and on each engine; the event tells all of it.
func TestBackendErrors(t *testing.T) {
	rows := []struct {
		op      blocktest.Op
		command Command
		want    Errno
	}{
		{blocktest.OpRead, CmdRead, EIO}, {blocktest.OpWrite, CmdWrite, EIO}, {blocktest.OpFlush, CmdFlush, EIO},
		{blocktest.OpZero, CmdWriteZeroes, EIO}, {blocktest.OpDiscard, CmdTrim, EIO}, {blocktest.OpStatus, CmdBlockStatus, EIO},
	}
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine})
			o := dialOptions{style: style}
			if style != styleSimple {
				o.contexts = []string{ContextAllocation}
			}
			w := h.dial(o)
			for _, r := range rows {
				if r.command == CmdBlockStatus && style == styleSimple {
					continue
				}
				for _, length := range []uint64{512, 300_000} {
					h.disk.Add(blocktest.Rule{Op: r.op, Err: syscall.EIO, Times: 1})
					var payload []byte
					if r.command == CmdWrite {
						payload = fill(1, int(length))
					}
					a := w.do(r.command, 0, 0, length, payload)
					w.refused(r.want, a)
					require.Nil(t, a.data)
					require.Empty(t, a.offsets)
					h.disk.ClearRules()
					w.alive()
					told := h.events.await(t, func(e Event) bool { _, ok := e.(RequestFailed); return ok }).(RequestFailed)
					require.Equal(t, r.command, told.Command)
					require.ErrorIs(t, told.Err, syscall.EIO)
				}
			}
			w.disconnect()
		})
	})
}

// Goal: a text that is too long is cut, between characters (CH-17, GEN-1). Method: a disk whose errors are books.
func TestLongErrorTexts(t *testing.T) {
	d := &talkativeDisk{stripedDisk{8}, errors.New(strings.Repeat("\u00e4", 5000))}
	w := newHouse(t, houseOptions{driver: d}).dial(dialOptions{style: styleStructured})
	a := w.do(CmdFlush, 0, 0, 0, nil)
	w.refused(EIO, a)
	require.Greater(t, len(a.text), messageMax-5)
	w.alive()
}

// talkativeDisk explains at length, and once, why it does not flush.
type talkativeDisk struct {
	stripedDisk
	excuse error
}

// Flush fails the first time.
func (d *talkativeDisk) Flush(*blockcore.Task) error {
	err := d.excuse
	d.excuse = nil
	return err
}

// Goal: errors of the host become the few that the wire has (ERR-1, ERR-2, ERR-3, WZ-4). Method: each row of a table, plain, wrapped and with
// FAST_ZERO; numbers that have no row are EIO.
func TestErrnoTable(t *testing.T) {
	for errno, want := range map[syscall.Errno]struct{ plain, fast Errno }{
		unix.EPERM: {EPerm, EPerm}, unix.EACCES: {EPerm, EPerm}, unix.EROFS: {EPerm, EPerm},
		unix.EIO: {EIO, EIO}, unix.EINVAL: {EInval, EInval},
		unix.ENOSPC: {ENoSpc, ENoSpc}, unix.EDQUOT: {ENoSpc, ENoSpc}, unix.EFBIG: {ENoSpc, ENoSpc},
		unix.EOPNOTSUPP: {EInval, ENotSup}, // ENOTSUP is the same number
		unix.ENOMEM:     {EIO, EIO}, unix.EOVERFLOW: {EIO, EIO}, unix.ESHUTDOWN: {EShutdown, EShutdown},
		unix.ESTALE: {EIO, EIO}, unix.ETIMEDOUT: {EIO, EIO}, unix.EREMOTEIO: {EIO, EIO}, unix.EXDEV: {EIO, EIO}, unix.EBADF: {EIO, EIO},
		unix.ENODEV: {EIO, EIO}, unix.ENXIO: {EIO, EIO}, unix.ENOLCK: {EIO, EIO},
		unix.ECONNREFUSED: {EIO, EIO}, unix.EHOSTUNREACH: {EIO, EIO}, unix.ENETUNREACH: {EIO, EIO}, syscall.Errno(4000): {EIO, EIO},
	} {
		for _, err := range []error{errno, fmt.Errorf("node x: %w", fmt.Errorf("write: %w", errno))} {
			require.Equal(t, want.plain, wireErrno(err, 0), "%v", errno)
			require.Equal(t, want.plain, wireErrno(err, CmdFlagFUA|CmdFlagNoHole), "%v", errno)
			require.Equal(t, want.fast, wireErrno(err, CmdFlagFastZero), "%v", errno)
		}
	}
	require.Equal(t, EIO, wireErrno(errors.New("no number at all"), 0))
}

// Goal: nobody invents an errno without deciding what clients see (ERR-1). Method: the errnos that the block layer and the backends name,
// found in their syntax trees, are rows of the table, or stand below as never reaching a request.
func TestErrnosHaveRows(t *testing.T) {
	internal := map[string]string{
		"EAGAIN": "tried again", "EINTR": "tried again", "EALREADY": "liburing's business", "EBUSY": "at opening, closing and locking",
		"EEXIST": "at creating", "ENOENT": "at opening", "EISDIR": "at opening", "ELOOP": "at opening", "EMFILE": "at opening", "ENFILE": "at opening",
		"ENOTTY": "asked whether a device can do something", "ENOSYS": "asked whether the kernel can do something",
		"ECANCELED": "of operations the engine itself took back", "EBADFD": "of a ring that is not enabled", "ETIME": "of a wait that was bounded",
		"EADDRINUSE": "another port of ours is tried", "EADDRNOTAVAIL": "another port of ours is tried", "EPROTONOSUPPORT": "at opening",
	}
	for _, dir := range []string{"../backends/*", "../blockcore"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for name := range errnosNamed(t, file) {
				_, known := wireErrors[errnoByName(t, name)]
				require.True(t, known || internal[name] != "", "%s names %s, which has no row in wireErrors", file, name)
			}
		}
	}
}

// errnosNamed returns the selectors of a file that are errnos.
func errnosNamed(t *testing.T, file string) map[string]bool {
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	require.NoError(t, err)
	found := map[string]bool{}
	ast.Inspect(tree, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && (x.Name == "unix" || x.Name == "syscall") && errnoByNameOrZero(s.Sel.Name) != 0 {
			found[s.Sel.Name] = true
		}
		return true
	})
	return found
}

func errnoByName(t *testing.T, name string) syscall.Errno {
	e := errnoByNameOrZero(name)
	require.NotZero(t, e, name)
	return e
}

// errnoByNameOrZero is the number of an errno, 0 for what is none. Two names have a number that bears another one.
func errnoByNameOrZero(name string) syscall.Errno {
	switch name {
	case "EWOULDBLOCK":
		return unix.EAGAIN
	case "EOPNOTSUPP":
		return unix.EOPNOTSUPP
	}
	for e := syscall.Errno(1); e < 200; e++ {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	return 0
}
