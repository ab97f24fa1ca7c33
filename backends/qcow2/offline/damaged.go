package offline

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// Damaged is an entry of a table that cannot be.
type Damaged struct {
	What   string
	Offset format.Host
}

func (e *Damaged) Error() string {
	return fmt.Sprintf("the image is corrupt: %s %#x is not aligned; 'image check' says what else is wrong", e.What, uint64(e.Offset))
}

// Unwrap makes it an I/O error, as it is to QEMU.
func (e *Damaged) Unwrap() error { return syscall.EIO }

// errUndone ends a walk that takes changes back.
var errUndone = errors.New("all is undone")
