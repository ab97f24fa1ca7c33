// Package nbddev tells the kernel's nbd devices (/dev/nbd0 and so on) of a new size while they are connected, and asks for the one they have.
//
// What the kernel demands depends on how a device was connected, which it does not tell:
//
//   - By netlink (nbd-client as a rule): NBD_CMD_RECONFIGURE of the generic netlink family "nbd", with NBD_ATTR_INDEX and
//     NBD_ATTR_SIZE_BYTES; since Linux 5.3, older ones take the attribute and do nothing. The identifier that was given at the
//     connection, if there was one, has to come along (Linux 5.14). EINVAL for a device of the other kind.
//   - By ioctl (nbd-client -nonetlink): NBD_SET_SIZE. EINVAL for a device of the other kind.
//
// Both want CAP_SYS_ADMIN in the first user namespace, and the family is in the first network namespace only. Netlink is tried first: it
// does not open the device, and closing one may disconnect it (NBD_CFLAG_DISCONNECT_ON_CLOSE).
package nbddev
