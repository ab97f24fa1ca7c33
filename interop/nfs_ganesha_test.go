//go:build ganesha

package interop_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/interop/verifier"
)

// ganeshaDisk is a ganesha with a disk of zeroes.
func ganeshaDisk(t *testing.T) *nfstest.Ganesha {
	t.Helper()
	g := nfstest.StartGanesha(t, t.TempDir())
	require.NoError(t, os.WriteFile(g.Path("disk.img"), nil, 0o600))
	require.NoError(t, os.Truncate(g.Path("disk.img"), nfsDiskBytes))
	return g
}

// Goal: QEMU's nfs driver and ours see one file the same way. Method: each writes a part of it through ganesha and flushes, and the other one reads both parts
// while both have it open; then the file is looked at on the disk, and copied as a whole by each.
func TestNFSInterop(t *testing.T) {
	g := ganeshaDisk(t)
	server := onNFS(t, g.StockURL("disk.img"))
	client(t, "qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", "-c", "write -P 2 5000 777", "-c", "flush", server.URI()).ok(t)
	client(t, "qemu-io", "-f", "raw", "-c", "read -P 1 0 5000", "-c", "read -P 2 5000 777", "-c", "read -P 1 5777 4k",
		"-c", "write -P 3 2M 3M", "-c", "write -P 4 16776704 512", "-c", "flush", g.StockURL("disk.img")).ok(t)
	client(t, "qemu-io", "-f", "raw", "-c", "read -P 3 2M 3M", "-c", "read -P 4 16776704 512", "-c", "read -P 0 1M 1M", server.URI()).ok(t)
	copied := filepath.Join(t.TempDir(), "copy")
	client(t, "nbdcopy", server.URI(), copied).ok(t)
	server.Stop(t)
	client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", copied, g.Path("disk.img")).ok(t)
	client(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", copied, g.StockURL("disk.img")).ok(t)
}

// Goal: what goes over NFS in a deep queue is read back whole. Method: fio's verify jobs of small writes and of mixed lengths, through ganesha.
func TestNFSFioVerify(t *testing.T) {
	g := ganeshaDisk(t)
	server := onNFS(t, g.StockURL("disk.img"))
	require.Zero(t, fioErrors(t, server.URI(), "--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=16m", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1"))
	require.Zero(t, fioErrors(t, server.URI(), "--rw=randrw", "--bsrange=512-128k", "--blockalign=512", "--iodepth=16", "--size=16m", "--fsync=16",
		"--verify=crc32c", "--verify_fatal=1"))
}

// Goal: ganesha can be killed and started again under load as often as one likes: no client sees an error, reads are right, and the file has all in the end that a
// flush was answered for. Method: three sessions with eight requests each; kill -9 after some thousand answers, a start after some milliseconds more; every tenth
// kill meets a server that has just come back. At the end our server is killed as well, so that only what it had brought to the file is there.
func TestNFSKills(t *testing.T) {
	kills := envNumber(t, nfsKillsEnv, nfsKillsDefault)
	g := ganeshaDisk(t)
	server := onNFS(t, g.StockURL("disk.img"))
	ledger := verifier.NewVolatileLedger(nfsDiskBytes)
	load := newNFSLoad(t, server, ledger, nfsSeed(t))
	for n := range kills {
		if n%10 != 9 {
			load.goOn()
		}
		g.Kill()
		load.linger(50 * time.Millisecond)
		g.Restart()
	}
	load.goOn()
	server.Kill(t)
	load.over()
	disk, err := os.ReadFile(g.Path("disk.img"))
	require.NoError(t, err)
	tally, err := ledger.Settle(disk)
	require.NoError(t, err)
	t.Logf("%d kills under %d requests: %+v", kills, ledger.Answers(), tally)
}
