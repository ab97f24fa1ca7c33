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

// protocolTCP is how the port mapper calls TCP.
const protocolTCP = 6

// AppendGetport appends the arguments of GETPORT. RFC 1833 3.2.
func AppendGetport(b []byte, p Program) []byte {
	b = appendUint32(b, p.Number)
	b = appendUint32(b, p.Version)
	b = appendUint32(b, protocolTCP)
	return appendUint32(b, 0)
}

// ParseGetport reads the results of GETPORT; 0 = the program does not listen.
func ParseGetport(b []byte) (port uint32, err error) {
	d := decoder{rest: b}
	if port = d.uint32(); port > 65535 {
		return 0, ErrMalformed
	}
	return port, d.err
}
