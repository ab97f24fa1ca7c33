package imagelock

import (
	"fmt"
	"syscall"

	"nbd-dataplane/blockcore"
)

// ConflictError says that somebody else uses an image in a way that excludes ours.
type ConflictError struct {
	Image      string                // its name or URL
	Permission blockcore.Permissions // one bit
	Denied     bool                  // others do not share it; otherwise they use what we do not share
	Holder     string                // who, as far as a server tells; "" = no server was asked
}

// Message is QEMU's wording of the error.
func (e *ConflictError) Message() string {
	shared := ""
	if !e.Denied {
		shared = "shared "
	}
	return fmt.Sprintf("Failed to get %s%q lock", shared, e.Permission.String())
}

// Hint is QEMU's second line.
func (e *ConflictError) Hint() string {
	return fmt.Sprintf("Is another process using the image [%s]?", e.Image)
}

func (e *ConflictError) Error() string {
	if e.Holder != "" {
		return e.Message() + ": the server says that " + e.Holder + " has the file"
	}
	return e.Message() + ". " + e.Hint()
}

// Unwrap lets the error be taken for EAGAIN.
func (e *ConflictError) Unwrap() error { return syscall.EAGAIN }
