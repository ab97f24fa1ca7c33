package blocktest

import (
	"errors"
	"fmt"
	"testing"

	"nbd-dataplane/blockcore"
)

// tasksParallel is how many requests are in a driver at once.
const tasksParallel = 32

// Goal: requests that are in progress together do not disturb each other; method: many Tasks write, zero and read
// interleaved stripes, each its own, then all is compared.
func testParallel(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	stripe := max(d.align(), min(4096, d.Driver.Size()/tasksParallel&^(d.align()-1)))
	done := make(chan error, tasksParallel)
	ok := ctx.Post(func() {
		for i := range int64(tasksParallel) {
			ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) { done <- d.ownStripes(t, i, stripe) }))
		}
	})
	if !ok {
		t.Fatal("the context is closed")
	}
	var err error
	for range tasksParallel {
		err = errors.Join(err, <-done)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ownStripes works on every tasksParallel-th stripe, from number i on.
func (d *disk) ownStripes(t *blockcore.Task, i, stripe int64) error {
	for off := i * stripe; off+stripe <= d.Driver.Size(); off += tasksParallel * stripe {
		for round := range uint64(3) {
			p := pattern(uint64(off)+round, stripe)
			if err := writeFrom(t, d.Driver, off, p, blockcore.WriteFlags(round&1)); err != nil {
				return err
			}
			got, err := readTo(t, d.Driver, off, stripe)
			if err != nil {
				return err
			}
			if d.Forgets {
				clear(p)
			}
			if string(got) != string(p) {
				return fmt.Errorf("Task %d: stripe at %#x is not what was written in round %d", i, off, round)
			}
			t.Yield()
		}
	}
	if f, ok := d.Driver.(blockcore.Flusher); ok {
		return f.Flush(t)
	}
	return nil
}
