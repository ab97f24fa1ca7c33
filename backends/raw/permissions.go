package raw

import "nbd-dataplane/blockcore"

// lockBits is how many permissions there are. Their bit numbers are offsets of locks in the file.
const lockBits = 4

// permissions returns what an open file does and what it lets others do.
//
// With ShareRW they are those of qemu-nbd: others may write but not resize. Without, those of a disk
// of a running QEMU: others may not write either. The file of an image, which becomes longer when it is written to, Grows.
func (o *Options) permissions() (uses, shares blockcore.Permissions) {
	uses = blockcore.PermRead
	if !o.ReadOnly {
		uses |= blockcore.PermWrite
	}
	if o.Grows && !o.ReadOnly {
		uses |= blockcore.PermResize
	}
	shares = blockcore.PermAll &^ blockcore.PermResize
	if !o.ShareRW {
		shares &^= blockcore.PermWrite
	}
	return uses, shares
}

// locks returns the bytes that stand for permissions.
func (o *Options) locks() lockSet { return newLockSet(o.permissions()) }
