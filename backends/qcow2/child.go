package qcow2

import (
	"fmt"

	"nbd-dataplane/blockcore"
)

// SetChild takes a child: the file, the backing image, the external data file.
func (i *Image) SetChild(role blockcore.Role, e *blockcore.Edge) {
	switch role {
	case blockcore.RoleFile:
		i.file.Store(e)
	case blockcore.RoleBacking:
		i.backing.Store(e)
	case blockcore.RoleData:
		i.data.Store(e)
	}
}

// CheckChildren refuses to be without what is needed.
func (i *Image) CheckChildren() error {
	switch {
	case i.file.Load() == nil:
		return fmt.Errorf("A block device must be specified for %q", blockcore.RoleFile)
	case i.external && i.data.Load() == nil:
		return fmt.Errorf("'data-file' is required for this image")
	case !i.external && i.data.Load() != nil:
		return fmt.Errorf("'data-file' can only be set for images with an external data file")
	}
	return nil
}

// ChildPermissions asks for what QEMU asks for: the file for itself alone, the backing image as it is.
func (i *Image) ChildPermissions(role blockcore.Role, perm, shared blockcore.Permissions) (takes, shares blockcore.Permissions) {
	const changing = blockcore.PermWrite | blockcore.PermResize
	takes = blockcore.PermRead
	switch role {
	case blockcore.RoleBacking:
		// Others may write to it what is there already, and what they know it to be good for if nobody up here minds.
		shares = blockcore.PermRead | blockcore.PermWriteUnchanged
		return takes, shares | shared&changing
	case blockcore.RoleData:
		if !i.readOnly {
			takes |= perm | changing
		}
		return takes, shared &^ blockcore.PermResize
	}
	if !i.readOnly {
		takes |= changing // metadata has to be written whatever the parents do
	}
	return takes, blockcore.PermRead | blockcore.PermWriteUnchanged
}

// datas is where guest data is.
func (i *Image) datas() *blockcore.Edge {
	if i.external {
		return i.data.Load()
	}
	return i.file.Load()
}
