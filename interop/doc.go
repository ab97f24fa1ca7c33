// Package interop holds the tests that put real clients on the real program: nbdinfo, nbdsh, nbdcopy, qemu-io, qemu-img,
// QEMU's own reconnecting driver, fio's nbd engine and nbd-client. Each test starts a server process of its own.
package interop
