package nbddev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	genericHeaderBytes = 4       // struct genlmsghdr: cmd, version, two reserved
	answerBytesMax     = 1 << 16 // an answer of GETFAMILY has some 200 bytes for each command
)

var (
	native     = binary.NativeEndian
	errGarbled = errors.New("netlink: the kernel's answer is garbled")
)

// reconfigure tells by netlink.
func (d Device) reconfigure(sizeBytes int64) error {
	s, err := openGeneric()
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer s.Close()
	family, err := s.family(familyName)
	if err != nil {
		return fmt.Errorf("netlink: look up family %q: %w", familyName, err)
	}
	attributes, err := d.sizeAttributes(sizeBytes)
	if err != nil {
		return err
	}
	if _, err := s.ask(request(family, cmdReconfigure, familyVersion, attributes)); err != nil {
		return fmt.Errorf("netlink NBD_CMD_RECONFIGURE: %w", err)
	}
	return nil
}

func (d Device) sizeAttributes(sizeBytes int64) ([]byte, error) {
	b := appendAttribute(nil, attrIndex, native.AppendUint32(nil, d.index))
	b = appendAttribute(b, attrSizeBytes, native.AppendUint64(nil, uint64(sizeBytes)))
	identifier, err := os.ReadFile(d.attribute("backend"))
	switch {
	case errors.Is(err, fs.ErrNotExist): // none was given
		return b, nil
	case err != nil:
		return nil, err
	}
	// The kernel has put a newline behind what it shows.
	return appendAttribute(b, attrBackendIdentifier, append(bytes.TrimSuffix(identifier, []byte("\n")), 0)), nil
}

// generic is a socket of generic netlink, for one request at a time.
type generic int

func openGeneric() (generic, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	return generic(fd), err
}

// Close implements io.Closer.
func (s generic) Close() error { return unix.Close(int(s)) }

// family asks for the number that a family has in this kernel.
func (s generic) family(name string) (uint16, error) {
	attributes := appendAttribute(nil, unix.CTRL_ATTR_FAMILY_NAME, append([]byte(name), 0))
	answer, err := s.ask(request(unix.GENL_ID_CTRL, unix.CTRL_CMD_GETFAMILY, 1, attributes))
	if err != nil {
		return 0, err
	}
	if len(answer) < genericHeaderBytes {
		return 0, errGarbled
	}
	id, ok := findAttribute(answer[genericHeaderBytes:], unix.CTRL_ATTR_FAMILY_ID)
	if !ok || len(id) != 2 {
		return 0, errGarbled
	}
	return native.Uint16(id), nil
}

// ask sends a request and waits for the acknowledgement. What came before that is the answer, if there was any.
func (s generic) ask(message []byte) ([]byte, error) {
	if err := unix.Sendto(int(s), message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var answer []byte
	input := make([]byte, answerBytesMax)
	for {
		n, _, err := unix.Recvfrom(int(s), input, 0)
		if err != nil {
			return nil, err
		}
		body, done, err := readMessages(input[:n])
		if body != nil {
			answer = bytes.Clone(body)
		}
		if err != nil || done {
			return answer, err
		}
	}
}

// readMessages reads what came in one piece: an answer, or the acknowledgement, or both. done says that the latter is there.
func readMessages(input []byte) (answer []byte, done bool, err error) {
	for len(input) >= unix.SizeofNlMsghdr {
		length := int(native.Uint32(input))
		if length < unix.SizeofNlMsghdr || length > len(input) {
			return nil, false, errGarbled
		}
		body := input[unix.SizeofNlMsghdr:length]
		switch native.Uint16(input[4:]) {
		case unix.NLMSG_ERROR:
			return answer, true, acknowledged(body)
		default:
			answer = body
		}
		input = input[min(aligned(length), len(input)):]
	}
	return answer, false, nil
}

// acknowledged reads a struct nlmsgerr, which begins with 0 or an error number below it.
func acknowledged(body []byte) error {
	if len(body) < 4 {
		return errGarbled
	}
	if errno := int32(native.Uint32(body)); errno != 0 {
		return unix.Errno(-errno)
	}
	return nil
}

// request is a message that asks for an acknowledgement: struct nlmsghdr, struct genlmsghdr, attributes.
func request(family uint16, command, version uint8, attributes []byte) []byte {
	b := native.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+genericHeaderBytes+len(attributes)))
	b = native.AppendUint16(b, family)
	b = native.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = native.AppendUint32(b, 1) // sequence; there is one request at a time
	b = native.AppendUint32(b, 0) // port: the kernel's
	b = append(b, command, version, 0, 0)
	return append(b, attributes...)
}

// appendAttribute appends a struct nlattr with its payload, to the next multiple of four.
func appendAttribute(b []byte, kind uint16, payload []byte) []byte {
	length := unix.SizeofNlAttr + len(payload)
	b = native.AppendUint16(b, uint16(length))
	b = native.AppendUint16(b, kind)
	b = append(b, payload...)
	return append(b, make([]byte, aligned(length)-length)...)
}

func findAttribute(b []byte, kind uint16) ([]byte, bool) {
	for len(b) >= unix.SizeofNlAttr {
		length := int(native.Uint16(b))
		if length < unix.SizeofNlAttr || length > len(b) {
			return nil, false
		}
		if native.Uint16(b[2:]) == kind {
			return b[unix.SizeofNlAttr:length], true
		}
		b = b[min(aligned(length), len(b)):]
	}
	return nil, false
}

func aligned(length int) int { return (length + 3) &^ 3 }
