package loadgen

import (
	"errors"
	"fmt"
	"time"
)

// Limits of a Spec.
const (
	depthMax  = 1024     // two vectors a write, and the kernel takes 1,024 a call: deeper gains nothing
	connsMax  = 1024     // a thread each
	blockMax  = 32 << 20 // what every server accepts; NBD proto.md, "Block size constraints".
	blockUnit = 512
)

// Mode is the kind of requests a load sends.
type Mode int

// The modes.
const (
	Read  Mode = iota // reads only
	Write             // writes only
	Mixed             // Spec.ReadPercent reads, the rest writes
)

var modeNames = [...]string{Read: "read", Write: "write", Mixed: "mixed"}

func (m Mode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return fmt.Sprintf("Mode(%d)", int(m))
	}
	return modeNames[m]
}

// ParseMode reads a mode's name.
func ParseMode(name string) (Mode, error) {
	for m, n := range modeNames {
		if n == name {
			return Mode(m), nil
		}
	}
	return 0, fmt.Errorf("mode %q: want read, write or mixed", name)
}

// Spec says what a load does. The zero value of a field marked so takes its default.
type Spec struct {
	URI         string // nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH
	Mode        Mode
	ReadPercent int  // of Mixed; 0 means 70
	Sequential  bool // each connection walks its own share of the range; else uniformly random
	BlockBytes  int
	Depth       int   // requests kept outstanding, per connection
	Conns       int   // 0 means 1
	OffsetBytes int64 // where the range of offsets begins
	RangeBytes  int64 // its length; 0 means to the end of the export
	StepBytes   int64 // from one offset to the next, at least BlockBytes; 0 means BlockBytes
	FUA         bool  // on every write
	FlushEvery  int   // a FLUSH after so many writes of a connection; 0 means never
	Structured  bool  // negotiate structured replies
	Verify      bool  // write the pattern of each offset, and expect it when reading
	Seed        uint64
	// Heard is called by the thread of a connection each time something of an answer has come; nil = by nobody.
	Heard func(conn int, at time.Time)
}

// withDefaults returns s with the defaults filled in.
func (s Spec) withDefaults() Spec {
	if s.ReadPercent == 0 {
		s.ReadPercent = 70
	}
	if s.Conns == 0 {
		s.Conns = 1
	}
	if s.StepBytes == 0 {
		s.StepBytes = int64(s.BlockBytes)
	}
	return s
}

// validate checks everything that can be checked without a server.
func (s Spec) validate() error {
	switch {
	case s.BlockBytes <= 0 || s.BlockBytes > blockMax || s.BlockBytes%blockUnit != 0:
		return fmt.Errorf("block size %d: want a multiple of %d up to %d", s.BlockBytes, blockUnit, blockMax)
	case s.Depth < 1 || s.Depth > depthMax:
		return fmt.Errorf("depth %d: want 1 to %d", s.Depth, depthMax)
	case s.Conns < 1 || s.Conns > connsMax:
		return fmt.Errorf("%d connections: want 1 to %d", s.Conns, connsMax)
	case s.ReadPercent < 1 || s.ReadPercent > 99:
		return fmt.Errorf("%d percent reads: want 1 to 99", s.ReadPercent)
	case s.OffsetBytes < 0 || s.RangeBytes < 0 || s.OffsetBytes%blockUnit != 0:
		return errors.New("the range of offsets is negative or not aligned to 512")
	case s.StepBytes < int64(s.BlockBytes) || s.StepBytes%blockUnit != 0:
		return fmt.Errorf("steps of %d bytes: want a multiple of %d, at least the block size", s.StepBytes, blockUnit)
	case s.FlushEvery < 0:
		return fmt.Errorf("flush every %d writes: want 0 or more", s.FlushEvery)
	}
	return nil
}

// span is the part of an export one connection works on, in blocks, each a step behind the one before.
type span struct {
	offset int64 // bytes, of the first block
	blocks int64
}

// spans divides the range of s on an export of sizeBytes among the connections. Random
// loads share all of it, sequential ones get a share each.
func (s Spec) spans(sizeBytes int64) ([]span, error) {
	length := s.RangeBytes
	if length == 0 {
		length = sizeBytes - s.OffsetBytes
	}
	if s.OffsetBytes+length > sizeBytes {
		return nil, fmt.Errorf("range [%d, +%d) is outside the export of %d bytes", s.OffsetBytes, length, sizeBytes)
	}
	blocks := length / s.StepBytes
	if s.Sequential {
		blocks /= int64(s.Conns)
	}
	if blocks < 1 {
		return nil, fmt.Errorf("range of %d bytes has no block of %d for each connection", length, s.StepBytes)
	}
	spans := make([]span, s.Conns)
	for i := range spans {
		spans[i] = span{offset: s.OffsetBytes, blocks: blocks}
		if s.Sequential {
			spans[i].offset += int64(i) * blocks * s.StepBytes
		}
	}
	return spans, nil
}
