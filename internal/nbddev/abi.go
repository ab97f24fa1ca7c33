package nbddev

// linux/nbd.h.
const ioctlSetSize = 0xab02 // NBD_SET_SIZE, in bytes

// linux/nbd-netlink.h.
const (
	familyName    = "nbd"
	familyVersion = 1

	cmdReconfigure = 3 // NBD_CMD_RECONFIGURE

	attrIndex             = 1  // NBD_ATTR_INDEX, u32
	attrSizeBytes         = 2  // NBD_ATTR_SIZE_BYTES, u64
	attrBackendIdentifier = 10 // NBD_ATTR_BACKEND_IDENTIFIER, a string
)
