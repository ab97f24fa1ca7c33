//go:build ganesha

package nfstest

import (
	"bytes"
	"os"
	"testing"
)

// Goal: the script and its helper do what they say. Method: qemu-io writes through a Ganesha that is killed and started
// again, and the bytes are looked at in the file; while it is down nobody can connect.
func TestGanesha(t *testing.T) {
	g := StartGanesha(t, t.TempDir())
	run(t, "qemu-img", "create", "-q", "-f", "raw", g.StockURL("disk.img"), "1M")
	for round := range 3 {
		run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 64k 64k", "-c", "flush", g.StockURL("disk.img"))
		g.Kill()
		if out, err := command(t, "qemu-img", "info", "-f", "raw", g.StockURL("disk.img")); err == nil {
			t.Errorf("round %d: a server that is down served: %s", round, out)
		}
		g.Restart()
	}
	run(t, "qemu-io", "-f", "raw", "-c", "read -P 7 64k 64k", g.StockURL("disk.img"))
	data, err := os.ReadFile(g.Path("disk.img"))
	if err != nil || !bytes.Equal(data[64<<10:128<<10], bytes.Repeat([]byte{7}, 64<<10)) {
		t.Errorf("the file has other bytes: %v", err)
	}
}
