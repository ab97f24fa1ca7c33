package offline

import (
	"errors"
	"syscall"
)

// ErrNoRoom says that a name does not fit into the header.
var ErrNoRoom = errors.New("the header has no room for the name")

// SetBacking changes which file is below the image, and changes no data: what is read afterwards is what the new file has. An empty name means
// none.
func (im *Image) SetBacking(name, backingFormat string) error {
	if err := im.header.SetBacking(name, backingFormat); err != nil {
		return err
	}
	err := im.writeHeader()
	if errors.Is(err, syscall.ENOSPC) {
		return ErrNoRoom
	}
	return err
}
