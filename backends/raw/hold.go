package raw

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// Hold takes QEMU's image locks for somebody who works on a file without a Driver, as qemu-img does: nobody else may write or resize it
// meanwhile, and who only reads lets others read. The locks last until what is returned is closed; on file systems without locks there is
// nothing to hold.
func Hold(f *os.File, writes bool) (io.Closer, error) {
	fd, err := openRetry(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open %s for locking: %w", f.Name(), err)
	}
	held := os.NewFile(uintptr(fd), f.Name())
	uses := blockcore.PermRead
	if writes {
		uses |= blockcore.PermWrite | blockcore.PermResize
	}
	err = widenLocks(kernelLocks{}, fd, f.Name(), imagelock.Set{}, imagelock.NewSet(uses, blockcore.PermAll&^(blockcore.PermWrite|blockcore.PermResize)))
	if err != nil && !locksUnsupported(err) {
		held.Close()
		return nil, err
	}
	return held, nil
}
