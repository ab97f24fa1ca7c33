package nbddev

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Goal: only a whole nbd device is taken for one. Method: places in /sys as Linux has them.
func TestAt(t *testing.T) {
	const virtual = "../../devices/virtual/block/"
	for link, want := range map[string]error{
		virtual + "nbd0":           nil,
		virtual + "nbd15":          nil,
		virtual + "nbd0/nbd0p1":    ErrPartition,
		virtual + "loop0":          ErrOther,
		virtual + "nbd":            ErrOther,
		virtual + "loop0/nbd":      ErrOther,
		virtual + "nbd99999999999": ErrOther,
	} {
		_, err := at("/dev/x", link)
		require.ErrorIs(t, err, want, link)
	}
	d, err := at("/dev/x", virtual+"nbd15")
	require.NoError(t, err)
	require.Equal(t, Device{"/dev/x", "nbd15", 15}, d)
}

// Goal: what is no device is refused before anything is changed. Method: files of other kinds.
func TestFindRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for path, want := range map[string]error{file: ErrOther, "/dev/null": ErrOther, file + "none": fs.ErrNotExist} {
		_, err := Find(path)
		require.ErrorIs(t, err, want, path)
	}
}

// Goal: the request is what include/uapi/linux/netlink.h and nbd-netlink.h describe. Method: its bytes, on a machine of little endian.
func TestRequestBytes(t *testing.T) {
	attributes, err := Device{name: "nbd-none", index: 7}.sizeAttributes(0x1122334455667788)
	require.NoError(t, err)
	require.Equal(t, []byte{
		40, 0, 0, 0, 0x1c, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, // length, family, REQUEST|ACK, sequence, port
		3, 1, 0, 0, // NBD_CMD_RECONFIGURE, version
		8, 0, 1, 0, 7, 0, 0, 0, // NBD_ATTR_INDEX
		12, 0, 2, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // NBD_ATTR_SIZE_BYTES
	}, request(0x1c, cmdReconfigure, familyVersion, attributes))
	require.Equal(t, []byte{7, 0, 10, 0, 'a', 'b', 0, 0}, appendAttribute(nil, attrBackendIdentifier, []byte("ab\x00")))
}

// Goal: the kernel understands the encoding, and its answers are understood. Method: the family that every kernel has, and one that none has.
func TestFamilyOfTheKernel(t *testing.T) {
	s, err := openGeneric()
	require.NoError(t, err)
	defer s.Close()
	id, err := s.family("nlctrl")
	require.NoError(t, err)
	require.EqualValues(t, unix.GENL_ID_CTRL, id)
	_, err = s.family("no such thing")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// Goal: no answer makes us read past its end. Method: acknowledgements and answers that are cut short or lie about their length.
func TestGarbledAnswers(t *testing.T) {
	header := func(length byte, kind byte, body ...byte) []byte {
		return append([]byte{length, 0, 0, 0, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, body...)
	}
	for _, input := range [][]byte{header(0, 2), header(15, 2), header(40, 2), header(16, unix.NLMSG_ERROR), header(18, unix.NLMSG_ERROR, 0, 0)} {
		_, _, err := readMessages(input)
		require.ErrorIs(t, err, errGarbled, input)
	}
	_, done, err := readMessages(header(20, unix.NLMSG_ERROR, 0xea, 0xff, 0xff, 0xff))
	require.True(t, done)
	require.ErrorIs(t, err, unix.EINVAL)
	for _, attributes := range [][]byte{nil, {1}, {0, 0, 1, 0}, {9, 0, 1, 0, 0}} {
		_, ok := findAttribute(attributes, 1)
		require.False(t, ok, attributes)
	}
}
