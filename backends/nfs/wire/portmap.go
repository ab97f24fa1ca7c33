package wire

import (
	"strconv"
	"strings"
)

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

// netidTCP6 is how version 3 of the port mapper calls TCP over IPv6, of which version 2 knows nothing.
const netidTCP6 = "tcp6"

// addressBytesMax bounds a universal address: one of IPv6 has 39 bytes and the port.
const addressBytesMax = 128

// AppendGetaddr appends the arguments of GETADDR, for IPv6. RFC 1833 2.1.
func AppendGetaddr(b []byte, p Program) []byte {
	b = appendUint32(b, p.Number)
	b = appendUint32(b, p.Version)
	b = appendOpaque(b, netidTCP6)
	b = appendOpaque(b, "") // where: any address
	return appendOpaque(b, "")
}

// ParseGetaddr reads the results of GETADDR: a universal address, of which only the port is of interest (RFC 5665 5.2.3.4); 0 = the program does not listen.
func ParseGetaddr(b []byte) (port uint32, err error) {
	d := decoder{rest: b}
	address := string(d.opaque(addressBytesMax))
	if d.err != nil || address == "" {
		return 0, d.err
	}
	parts := strings.Split(address, ".")
	if len(parts) < 2 {
		return 0, ErrMalformed
	}
	for _, part := range parts[len(parts)-2:] {
		v, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return 0, ErrMalformed
		}
		port = port<<8 | uint32(v)
	}
	return port, nil
}
