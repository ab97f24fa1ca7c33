package wire

import "slices"

// AppendMount appends the arguments of MNT and UMNT. RFC 1813 5.2.1.
func AppendMount(b []byte, path string) []byte { return appendOpaque(b, path) }

// flavorsMax bounds the list of ways to prove who one is.
const flavorsMax = 64

// ParseMount reads the results of MNT: the handle of the directory, and whether AUTH_SYS will do there.
func ParseMount(b []byte) (root Handle, takesAuthSys bool, err error) {
	d, err := begin(b)
	if err != nil {
		return nil, false, err
	}
	root = d.handle()
	n := d.uint32()
	if n > flavorsMax {
		return nil, false, ErrMalformed
	}
	flavors := make([]uint32, n)
	for i := range flavors {
		flavors[i] = d.uint32()
	}
	return root, n == 0 || slices.Contains(flavors, authSys), d.err
}
