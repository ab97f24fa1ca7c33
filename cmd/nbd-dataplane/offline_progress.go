package main

import (
	"fmt"
	"io"
)

// progressBar shows how much of a long command is done, as qemu-img's -p does, and nothing if it was not asked for.
type progressBar struct {
	w    io.Writer // nil = nobody looks
	last int64     // in hundredths of a percent
}

func newProgressBar(w io.Writer, wanted bool) *progressBar {
	if !wanted {
		return &progressBar{}
	}
	return &progressBar{w: w, last: -1}
}

const wholeProgress = 100_00

// show is called with how much of the whole is done.
func (p *progressBar) show(done, total int64) error {
	if p.w == nil || total <= 0 {
		return nil
	}
	now := int64(float64(done) / float64(total) * wholeProgress)
	if now == p.last {
		return nil
	}
	p.last = now
	fmt.Fprintf(p.w, "    (%d.%02d/100%%)\r", now/100, now%100)
	return nil
}

// end leaves the line.
func (p *progressBar) end() {
	if p.w != nil {
		_ = p.show(1, 1)
		fmt.Fprintln(p.w)
	}
}
