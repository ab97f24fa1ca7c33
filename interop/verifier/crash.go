package verifier

import "slices"

// past is a version of a block that was there before another one.
type past struct {
	version uint64
	acked   uint64 // by the clock
}

// supersede notes that a write was acknowledged.
func (c *Client) supersede(b *block, version uint64) {
	if c.o.Crashes {
		for _, v := range append(b.maybe, b.version) {
			b.past = append(b.past, past{version: v, acked: b.acked})
		}
		c.clock++
		b.acked = c.clock
	}
	b.version, b.maybe = version, nil
}

// flushed notes that a FLUSH was acknowledged that began at a moment: of what was acknowledged before it only the last counts.
func (c *Client) flushed(begun uint64) {
	if !c.o.Crashes {
		return
	}
	for _, b := range c.blocks {
		if b.acked < begun {
			b.past = nil
			continue
		}
		for k := len(b.past) - 1; k >= 0; k-- {
			if b.past[k].acked < begun {
				floor := b.past[k].acked // what it may have been then counts as one
				first := slices.IndexFunc(b.past, func(p past) bool { return p.acked == floor })
				b.past = slices.Clone(b.past[first:])
				break
			}
		}
	}
}

// crashed takes back what no FLUSH has covered.
func (c *Client) crashed() {
	for _, b := range c.blocks {
		for _, p := range b.past {
			b.maybe = append(b.maybe, p.version)
		}
		b.past, b.acked = nil, 0 // what is there now stays
	}
}

// audit reads all blocks that the client knows, one after the other.
func (c *Client) audit() error {
	numbers := make([]int64, 0, len(c.blocks))
	for at := range c.blocks {
		numbers = append(numbers, at)
	}
	slices.Sort(numbers)
	for len(numbers) > 0 {
		var out []byte
		n := min(len(numbers), len(c.free))
		for _, at := range numbers[:n] {
			i := c.free[len(c.free)-1]
			c.free = c.free[:len(c.free)-1]
			c.blocks[at].busy = true
			c.slots[i] = slot{command: cmdRead, at: at}
			out = appendRequest(out, cmdRead, uint64(i), uint64(at)*BlockBytes, BlockBytes)
		}
		if _, err := c.conn.Write(out); err != nil {
			return err
		}
		for len(c.free) < len(c.slots) {
			if err := c.answer(); err != nil {
				return err
			}
		}
		numbers = numbers[n:]
	}
	return nil
}

const (
	// tornVersion is none that is written: those are odd.
	tornVersion = 2
	sectorBytes = 512
)

// mixed reports whether each sector of what was read has one of the versions that may be there, since a crash leaves old and new ones, and takes
// that as what the block holds.
func (b *block) mixed(at int64, data []byte) bool {
	if len(b.maybe) == 0 {
		return false
	}
	for from := 0; from < len(data); from += sectorBytes {
		sector := string(data[from : from+sectorBytes])
		if !slices.ContainsFunc(append(b.maybe, b.version), func(version uint64) bool {
			return string(b.contents(at, version)[from:from+sectorBytes]) == sector
		}) {
			return false
		}
	}
	b.torn = slices.Clone(data)
	b.version, b.maybe = tornVersion, nil
	return true
}
