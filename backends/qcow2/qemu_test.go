package qcow2

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// disturb has qemu-io do random things to an image of sizeBytes.
func disturb(t *testing.T, random *rand.Rand, path string, sizeBytes int64, operations int, compressed bool) {
	t.Helper()
	var script strings.Builder
	for range operations {
		off := random.Int64N(sizeBytes/512) * 512
		n := min((random.Int64N(300)+1)*512, sizeBytes-off)
		switch random.IntN(7) {
		case 0:
			fmt.Fprintf(&script, "write -z %d %d\n", off, n)
		case 1:
			fmt.Fprintf(&script, "write -z -u %d %d\n", off, n)
		case 2:
			fmt.Fprintf(&script, "discard %d %d\n", off, n)
		case 3:
			if compressed {
				fmt.Fprintf(&script, "close\nopen -d unmap -o driver=qcow2 %s\n", path)
				compress(&script, random, off, sizeBytes, clusterOf(t, path))
				continue
			}
			fallthrough
		default:
			fmt.Fprintf(&script, "write -P %d %d %d\n", random.IntN(255)+1, off, n)
		}
	}
	commands := filepath.Join(t.TempDir(), "commands")
	require.NoError(t, os.WriteFile(commands, []byte(script.String()), 0o600))
	// Compressed data over what is allocated is an error there.
	_ = exec.Command("sh", "-c", `qemu-io -d unmap -f qcow2 "$1" < "$2"`, "sh", path, commands).Run()
	checkImage(t, path)
}

// compress has qemu-io compress a run of clusters from off on, each by a command of its own: it works on the clusters of one command in parallel, and where
// some of them are allocated QEMU 7.2 may leave a cluster of data among compressed ones, whose COPIED flag its own check calls an error. The image must have been
// opened just before: QEMU 7.2 goes on behind the last compressed data even if that place was freed since and has become an L2 table, and calls the image corrupt then.
func compress(script *strings.Builder, random *rand.Rand, off, sizeBytes, clusterBytes int64) {
	value := random.IntN(256)
	off -= off % clusterBytes
	for end := min(sizeBytes, off+min(2<<20, 64*clusterBytes)); off < end; off += clusterBytes {
		fmt.Fprintf(script, "write -c -P %d %d %d\n", value, off, min(clusterBytes, end-off))
	}
}

// clusterOf returns the size in bytes of the clusters of an image.
func clusterOf(t *testing.T, path string) int64 {
	t.Helper()
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	var bits [4]byte
	_, err = file.ReadAt(bits[:], 20)
	require.NoError(t, err)
	return 1 << binary.BigEndian.Uint32(bits[:])
}

// matrix are options of images.
var matrix = []struct {
	options    string
	compressed bool
}{
	{"", true},
	{"compat=0.10", true},
	{"cluster_size=512", true},
	{"cluster_size=4k,refcount_bits=1", false}, // two compressed clusters in one need more
	{"cluster_size=2M", true},
	{"cluster_size=16k,extended_l2=on", true},
	{"extended_l2=on,compression_type=zstd", true},
	{"cluster_size=8k,compression_type=zstd,refcount_bits=64", true},
	{"lazy_refcounts=on,preallocation=metadata", false},
	{"preallocation=falloc,cluster_size=32k", false},
}

// Goal: what QEMU has written is read, through a chain of images of all kinds, longer and shorter ones; method: random operations by qemu-io on each layer,
// contents compared with those that qemu-img sees.
func TestReadsWhatQEMUWrites(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	t.Cleanup(func() { t.Logf("seed %d", seed) })
	random := rand.New(rand.NewPCG(seed, 0))
	dir := scratch(t)
	base := filepath.Join(dir, "base.raw")
	content := make([]byte, 5<<20+512)
	for k := range content {
		content[k] = byte(k>>9) | 1
	}
	require.NoError(t, os.WriteFile(base, content, 0o600))
	below, format := base, "raw"
	var chain []string
	for k, c := range matrix {
		path := filepath.Join(dir, fmt.Sprintf("layer%d", k))
		size := int64(4+random.IntN(4))<<20 + 512*random.Int64N(100)
		options := c.options
		if strings.Contains(options, "preallocation") {
			options, _, _ = strings.Cut(options, "preallocation") // not with a backing file
			options = strings.TrimSuffix(options, ",")
		}
		create(t, path, fmt.Sprint(size), options, "-b", below, "-F", format)
		disturb(t, random, path, size, 25, c.compressed)
		chain = append(chain, path)
		below, format = path, "qcow2"

		r := newRig(t)
		top := r.file(base, true)
		for _, layer := range chain {
			top = r.add(layer, Options{ReadOnly: true}, blockcore.ChildOptions{Role: blockcore.RoleBacking, Node: top})
		}
		r.use(top)
		requireSame(t, flat(t, path, "-f", "qcow2"), r.contents(), options)
		r.close()
	}
}

// Goal: images without a backing file, of all options, are read as QEMU reads them, in small steps too; method: as above.
func TestReadsAllOptions(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	t.Cleanup(func() { t.Logf("seed %d", seed) })
	random := rand.New(rand.NewPCG(seed, 0))
	for _, c := range matrix {
		path := filepath.Join(scratch(t), "image")
		const size = 6<<20 + 1536
		create(t, path, fmt.Sprint(size), c.options)
		disturb(t, random, path, size, 60, c.compressed)
		want := flat(t, path, "-f", "qcow2")
		r := open(t, path, Options{ReadOnly: true})
		requireSame(t, want, r.contents(), c.options)
		for range 300 {
			off := random.Int64N(size)
			n := min(random.Int64N(70000)+1, size-off)
			requireSame(t, want[off:off+n], r.read(off, n), c.options)
		}
		r.close()
	}
}
