package raw

// Permissions is a set of things that a user of an image does, or lets others do. The
// bits are QEMU's and appear in the file as lock offsets.
type Permissions uint8

const (
	PermConsistentRead Permissions = 1 << iota
	PermWrite
	PermWriteUnchanged
	PermResize

	permCount = 4
	permAll   = 1<<permCount - 1
)

// permNames are QEMU's, by bit number.
var permNames = [permCount]string{"consistent read", "write", "write unchanged", "resize"}

// String names the permissions.
func (p Permissions) String() string {
	s := ""
	for n := range permCount {
		if p&(1<<n) == 0 {
			continue
		}
		if s != "" {
			s += ", "
		}
		s += permNames[n]
	}
	return s
}

// permissions returns what an open file does and what it lets others do.
//
// With ShareRW they are those of qemu-nbd: others may write but not resize. Without, those of a disk
// of a running QEMU: others may not write either.
func (o *Options) permissions() (uses, shares Permissions) {
	uses = PermConsistentRead
	if !o.ReadOnly {
		uses |= PermWrite
	}
	shares = permAll &^ PermResize
	if !o.ShareRW {
		shares &^= PermWrite
	}
	return uses, shares
}

// locks returns the bytes that stand for permissions.
func (o *Options) locks() lockSet { return newLockSet(o.permissions()) }
