package repair

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/blockcore"
)

// linesMax bounds what is told of one image: as many things may be wrong as there are clusters.
const linesMax = 20

// Listener is told of a repair, by a goroutine of its own.
type Listener struct {
	// Found is told what was wrong, in QEMU's words, a line each.
	Found func(line string)
	// Repaired is told at last how much was put right.
	Repaired func(errors, leaks int64)
}

// Func returns a qcow2.RepairFunc.
func Func(l Listener) func(t *blockcore.Task, file *blockcore.Edge) error {
	return func(t *blockcore.Task, file *blockcore.Edge) error {
		w := &worker{loop: t.Context(), file: file, listener: l}
		go w.run()
		for !w.done {
			t.Wait(&w.ended)
		}
		return w.err
	}
}

// worker is one repair.
type worker struct {
	// Immutable.
	loop     *blockcore.AioContext
	file     *blockcore.Edge
	listener Listener

	// Owned by the context.
	done  bool
	err   error
	ended blockcore.WaitQueue
}

// run repairs the image and wakes who waits for that.
func (w *worker) run() {
	err := w.repair()
	// A loop that is closed has no Task that waits: it ends when its Tasks have.
	_ = w.loop.Do(func(*blockcore.Task) error {
		w.done, w.err = true, err
		w.ended.WakeAll()
		return nil
	})
}

// repair does what QEMU does with such an image: refcounts that are too high and too low, and what else can be put right.
func (w *worker) repair() error {
	f := offline.NewAhead(NewFile(w.file, w.loop.Do)) // a server far away answers many at once
	defer f.Wait()
	im, err := offline.Open(f, format.ForCheck)
	if err != nil {
		return err
	}
	lines := 0
	report, err := im.Check(offline.CheckOptions{Repair: offline.RepairAll, Say: func(line string) {
		if lines++; lines <= linesMax {
			w.listener.Found(line)
		}
	}})
	if lines > linesMax {
		w.listener.Found(fmt.Sprintf("... and %d lines more", lines-linesMax))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	if report.Corruptions > 0 && report.Corruptions == im.Misplaced() && report.CheckErrors == 0 {
		// As QEMU does: what is right of the image can be used, and what is wrong says so when somebody wants it.
		w.listener.Found(fmt.Sprintf("%d entries are left that lead nowhere; the image is in use until one of them is", report.Corruptions))
		return im.MarkCounted()
	}
	if report.Corruptions > 0 || report.CheckErrors > 0 {
		return &format.Error{Errno: syscall.EIO, Text: fmt.Sprintf("%d errors are left that cannot be repaired", report.Corruptions+report.CheckErrors)}
	}
	w.listener.Repaired(report.CorruptionsFixed, report.LeaksFixed)
	return nil
}
