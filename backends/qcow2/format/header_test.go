package format

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// create has qemu-img make an image and returns its path.
func create(t *testing.T, size, options string, more ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.qcow2")
	args := []string{"create", "-q", "-f", "qcow2"}
	if options != "" {
		args = append(args, "-o", options)
	}
	args = append(append(args, more...), path, size)
	out, err := exec.Command("qemu-img", args...).CombinedOutput()
	require.NoError(t, err, "qemu-img %v: %s", args, out)
	return path
}

// firstCluster reads an image as Parse wants it.
func firstCluster(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	p = append(p, make([]byte, PrefixBytes)...)
	n, err := Prefix(p)
	require.NoError(t, err)
	return append(p, make([]byte, n)...)[:n]
}

// Goal: headers of all options are understood and written again as they were; method: images of qemu-img, compared byte for byte.
func TestHeadersOfQEMU(t *testing.T) {
	dir := t.TempDir()
	backing := filepath.Join(dir, "base.raw")
	require.NoError(t, os.WriteFile(backing, make([]byte, 1<<20), 0o600))
	for _, c := range []struct {
		options string
		more    []string
	}{
		{"compat=0.10", nil},
		{"compat=1.1", nil},
		{"cluster_size=512", nil},
		{"cluster_size=2M", nil},
		{"refcount_bits=1", nil},
		{"refcount_bits=64", nil},
		{"lazy_refcounts=on", nil},
		{"extended_l2=on", nil},
		{"compression_type=zstd", nil},
		{"data_file=" + filepath.Join(dir, "data") + ",data_file_raw=on", nil},
		{"compat=0.10", []string{"-b", backing, "-F", "raw"}},
		{"compat=1.1", []string{"-b", backing, "-F", "raw"}},
		{"preallocation=metadata", nil},
	} {
		path := create(t, "1G", c.options, c.more...)
		if strings.Contains(c.options, "cluster_size=512") {
			require.NoError(t, exec.Command("qemu-img", "bitmap", "--add", "-g", "64k", path, "b0").Run())
		}
		p := firstCluster(t, path)
		h, err := Parse(p, ForUse)
		require.NoError(t, err, c.options)
		require.EqualValues(t, 1<<30, h.SizeBytes)
		if c.more != nil {
			require.Equal(t, backing, h.Backing)
			require.Equal(t, "raw", h.BackingFormat())
		}
		if e := h.Extension(ExtensionFeatures); e != nil {
			require.Equal(t, Features(), ParseFeatures(e.Data))
			require.Equal(t, e.Data, MarshalFeatures(Features()))
		}
		again, err := h.Marshal()
		require.NoError(t, err)
		again = append(again, make([]byte, len(p)-len(again))...)
		require.Equal(t, p, again, c.options)
	}
}

// Goal: what is wrong in a header is refused in QEMU's words; method: single fields are broken, and qemu-img is asked what it thinks.
func TestBrokenHeaders(t *testing.T) {
	be := binary.BigEndian
	u32 := func(at int, v uint32) func([]byte) { return func(p []byte) { be.PutUint32(p[at:], v) } }
	u64 := func(at int, v uint64) func([]byte) { return func(p []byte) { be.PutUint64(p[at:], v) } }
	both := func(all ...func([]byte)) func([]byte) {
		return func(p []byte) {
			for _, f := range all {
				f(p)
			}
		}
	}
	for name, c := range map[string]struct {
		breaks  func(p []byte)
		options string
	}{
		"magic":                      {u32(0, 1), ""},
		"version 1":                  {u32(4, 1), ""},
		"version 4":                  {u32(4, 4), ""},
		"small clusters":             {u32(20, 8), ""},
		"large clusters":             {u32(20, 22), ""},
		"cluster bits wrap":          {u32(20, 64), ""},
		"header too short":           {u32(100, 96), ""},
		"header too long":            {u32(100, 0x7fffffff), ""},
		"header negative":            {u32(100, 0xfffffff8), ""},
		"backing offset":             {u64(8, 1<<40), ""},
		"backing length":             {both(u64(8, 1024), u32(16, 1024)), ""},
		"backing at the end":         {both(u64(8, 65536-10), u32(16, 11)), ""},
		"unknown feature":            {u64(72, 1<<63|1<<40), ""},
		"dirty and unknown":          {u64(72, 1<<5|1), ""},
		"subclusters":                {u64(72, 1<<4), "cluster_size=8k"},
		"refcount width":             {u32(96, 7), ""},
		"refcount width wraps":       {u32(96, 0xffffffff), ""},
		"crypt":                      {u32(32, 3), ""},
		"no refcount table":          {u32(56, 0), ""},
		"refcount table too large":   {u32(56, 0x7fffffff), ""},
		"refcount table unaligned":   {u64(48, 0x123), ""},
		"refcount table far":         {u64(48, 0x7fffffffffff0000), ""},
		"refcount table negative":    {u64(48, 0xffffffffffff0000), ""},
		"snapshots too many":         {u32(60, 65537), ""},
		"snapshots at odd place":     {both(u32(60, 1), u64(64, 0x123)), ""},
		"snapshots at the end":       {both(u32(60, 1), u64(64, 0x7fffffffffff0000+0xffd8)), ""},
		"L1 too large":               {u32(36, 0x7fffffff), ""},
		"L1 unaligned":               {u64(40, 0x123), ""},
		"L1 at the end of all":       {u64(40, 0x7fffffffffffff00), ""},
		"L1 too small":               {u32(36, 0), ""},
		"size too large":             {u64(24, 1<<62), ""},
		"size negative":              {u64(24, 1<<63), ""},
		"compression unknown":        {both(u64(72, 1<<3), func(p []byte) { p[104] = 2 }), ""},
		"compression without bit":    {func(p []byte) { p[104] = 1 }, ""},
		"compression without type":   {u64(72, 1<<3), ""},
		"raw data without data file": {u64(88, 2), ""},
		"extension too long":         {u32(116, 0xffff0000), ""},
		"extension behind the end":   {u32(116, 65536), ""},
		"crypt extension":            {u32(112, uint32(ExtensionCrypt)), ""},
		"backing format":             {u32(112, uint32(ExtensionBackingFormat)), ""},
		"bitmaps length":             {both(u32(112, uint32(ExtensionBitmaps)), u64(88, 1)), ""},
		"bitmaps reserved":           {both(u32(112, uint32(ExtensionBitmaps)), u32(116, 24), u64(88, 1), u32(124, 1)), ""},
		"bitmaps none":               {both(u32(112, uint32(ExtensionBitmaps)), u32(116, 24), u64(88, 1), u64(120, 0)), ""},
		"bitmaps too many":           {both(u32(112, uint32(ExtensionBitmaps)), u32(116, 24), u64(88, 1), u64(120, 65536<<32)), ""},
		"bitmaps directory":          {both(u32(112, uint32(ExtensionBitmaps)), u32(116, 24), u64(88, 1), u64(120, 1<<32), u64(128, 1<<40), u64(136, 0)), ""},
		"bitmaps directory offset":   {both(u32(112, uint32(ExtensionBitmaps)), u32(116, 24), u64(88, 1), u64(120, 1<<32), u64(128, 64), u64(136, 77)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := create(t, "1G", c.options)
			p, err := os.ReadFile(path)
			require.NoError(t, err)
			c.breaks(p)
			require.NoError(t, os.WriteFile(path, p, 0o600))
			out, err := exec.Command("qemu-img", "map", "-f", "qcow2", path).CombinedOutput()
			require.Error(t, err, "QEMU takes it")
			want, _, _ := strings.Cut(string(out), "\n")
			_, want, _ = strings.Cut(want, path+"': ")

			p = append(p, make([]byte, ClusterBytesMax)...)
			_, err = Prefix(p)
			if err == nil {
				_, err = Parse(p, ForUse)
			}
			require.EqualError(t, err, want)
		})
	}
}

// Goal: no input makes the parser panic, and what it takes it writes and takes again; method: fuzz.
func FuzzHeader(f *testing.F) {
	h := &Header{Version: 3, ClusterBits: 9, SizeBytes: 1 << 20, L1Entries: 32, L1Offset: 1024, RefTableOffset: 512, RefTableClusters: 1, RefcountOrder: 4}
	h.SetExtension(ExtensionFeatures, MarshalFeatures(Features())[:96])
	h.Backing = "base"
	p, err := h.Marshal()
	require.NoError(f, err)
	f.Add(append(p, make([]byte, 512)...)[:512])
	f.Fuzz(func(t *testing.T, p []byte) {
		n, err := Prefix(p)
		if err != nil || n > 4096 {
			return
		}
		p = append(p, make([]byte, n)...)[:n]
		h, err := Parse(p, ForUse)
		if err != nil {
			return
		}
		again, err := h.Marshal()
		if err != nil {
			return // the padding of extensions may not fit
		}
		h2, err := Parse(append(again, make([]byte, n)...)[:n], ForUse)
		require.NoError(t, err)
		h2.BackingOffset = h.BackingOffset
		if h.Version == 3 && h.LengthBytes != h2.LengthBytes {
			h2.LengthBytes, h2.Unknown = h.LengthBytes, h.Unknown
		}
		require.Equal(t, h, h2)
	})
}
