package main

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/keyval"
)

// readKeyring reads the object of kind secret_keyring: a key of the kernel's keyrings, by its serial number. It is read once, as QEMU does; who
// may read it the kernel decides.
func readKeyring(set *keyval.Set) ([]byte, error) {
	text, err := set.TakeNeeded("serial")
	if err != nil {
		return nil, err
	}
	serial, err := strconv.ParseInt(text, 0, 32)
	if err != nil {
		return nil, &keyval.Error{Parameter: "serial", Problem: "expects an integer"}
	}
	if err := notLoaded(set, "secret_keyring"); err != nil {
		return nil, err
	}
	data := make([]byte, secretBytesMax)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, int(serial), data, 0)
	switch {
	case err != nil:
		return nil, fmt.Errorf("Unable to read serial key %08x: %s", uint32(serial), strerror(errnoOf(err)))
	case n > len(data):
		return nil, fmt.Errorf("secret_keyring: the key has more than %d bytes", secretBytesMax)
	}
	return inFormat(set, string(data[:n]))
}
