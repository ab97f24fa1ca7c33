package imagelock

import (
	"iter"

	"nbd-dataplane/blockcore"
)

// Where the bytes are: the numbers of permissions are offsets from the two bases.
const (
	usesBase    = 100
	deniesBase  = 200
	permissions = 4

	// First is the first byte that means something, and SpanBytes how many there are from there to the last.
	First     = usesBase
	SpanBytes = deniesBase + permissions - usesBase
)

// Set is what a user of an image does, and what others may not do.
type Set struct{ Uses, Denies blockcore.Permissions }

// NewSet returns the set of somebody who shares the permissions of the second argument.
func NewSet(uses, shares blockcore.Permissions) Set {
	return Set{Uses: uses, Denies: blockcore.PermAll &^ shares}
}

// Use is how a disk is used.
type Use struct {
	ReadOnly bool
	ShareRW  bool // others may write
	Grows    bool // the file of an image becomes longer when it is written to
}

// Set returns the locks of a disk that is used in this way.
//
// With ShareRW they are those of qemu-nbd: others may write but not resize. Without, those of a disk of a running QEMU: others may not write either.
func (u Use) Set() Set {
	s := Set{Uses: blockcore.PermRead, Denies: blockcore.PermResize}
	if !u.ReadOnly {
		s.Uses |= blockcore.PermWrite
	}
	if u.Grows && !u.ReadOnly {
		s.Uses |= blockcore.PermResize
	}
	if !u.ShareRW {
		s.Denies |= blockcore.PermWrite
	}
	return s
}

// With returns what is in either.
func (s Set) With(o Set) Set { return Set{s.Uses | o.Uses, s.Denies | o.Denies} }

// Without returns what is in s and not in o.
func (s Set) Without(o Set) Set { return Set{s.Uses &^ o.Uses, s.Denies &^ o.Denies} }

// Byte is one byte that stands for a permission.
type Byte struct {
	Offset     int64
	Permission blockcore.Permissions // one bit
	Denies     bool                  // it says that the permission is not shared; otherwise that it is used
}

func used(n int) Byte { return Byte{Offset: int64(usesBase + n), Permission: 1 << n} }

func denied(n int) Byte {
	return Byte{Offset: int64(deniesBase + n), Permission: 1 << n, Denies: true}
}

// Bytes returns what is to be locked.
func (s Set) Bytes() iter.Seq[Byte] { return each(s, used, denied) }

// Against returns what others must not have locked, in the order in which QEMU looks.
func (s Set) Against() iter.Seq[Byte] { return each(s, denied, used) }

// each returns a byte for each permission that is used, and one for each that is denied.
func each(s Set, ifUsed, ifDenied func(n int) Byte) iter.Seq[Byte] {
	return func(yield func(Byte) bool) {
		for n := range permissions {
			if s.Uses&(1<<n) != 0 && !yield(ifUsed(n)) {
				return
			}
			if s.Denies&(1<<n) != 0 && !yield(ifDenied(n)) {
				return
			}
		}
	}
}
