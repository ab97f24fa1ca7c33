//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"nbd-dataplane/interop/subject"
)

const (
	cuts = 4
	// cutDiskBytes has room for an 8 MiB image and ext4's own.
	cutDiskBytes = 64 << 20
	// flushesMax bounds how many FLUSHes a guest sees before the cut.
	flushesMax = 12
	// cutDelayMax is more than the time between two FLUSHes.
	cutDelayMax = 1500 * time.Millisecond
	// mappedKiBMin is how much of the image must have been written through the mapping for the test to mean anything.
	mappedKiBMin = 2048
)

// Goal: whatever a FLUSH has covered is there after a power cut, stores through the mapping among it. Method: our server and a client run in the
// guest, on a file of the guest's ext4; QEMU is killed at a random moment, and so is the guest's page cache; a second boot reads the
// file and compares with what the acknowledged FLUSHes promise.
func TestPowerCut(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	root, err := subject.Root()
	if err != nil {
		t.Fatal(err)
	}
	vm, err := newGuest(root, t.TempDir(),
		static(t, root, "nbd-dataplane", "./cmd/nbd-dataplane"), static(t, root, "powercut", "./e2e/powercut"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range cuts {
		disk := filepath.Join(t.TempDir(), fmt.Sprintf("cut%d.img", n))
		if err := os.WriteFile(disk, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(disk, cutDiskBytes); err != nil {
			t.Fatal(err)
		}
		vm.cutAndVerify(t, disk, random)
		if t.Failed() {
			t.Fatalf("seed %d, cut %d", seed, n)
		}
	}
}

// cutAndVerify is one cut and the boot after it.
func (g guest) cutAndVerify(t *testing.T, disk string, random *rand.Rand) {
	t.Helper()
	drive := []string{"-drive", "if=none,id=disk0,format=raw,file=" + disk, "-device", "virtio-blk-pci,drive=disk0"}
	facts := map[string]string{"seed": strconv.FormatUint(random.Uint64(), 10)}
	wait := 3 + random.IntN(flushesMax-2)
	lines := g.cut(t, "powercut", facts, time.Duration(random.Int64N(int64(cutDelayMax))), func(line string) bool {
		if _, _, ok := flushedLine(line); ok {
			wait--
		}
		return wait == 0
	}, drive...)
	var flushed uint64
	mapped := 0
	for _, line := range lines {
		if writes, kib, ok := flushedLine(line); ok {
			flushed, mapped = writes, max(mapped, kib)
		}
	}
	if mapped < mappedKiBMin {
		t.Fatalf("only %d KiB of the image were touched through the mapping", mapped)
	}
	facts["flushed"] = strconv.FormatUint(flushed, 10)
	g.run(t, "powercut-verify", facts, drive...)
}

// flushedLine reads what the client says of a FLUSH. The last line may have been cut short by the cut: it does not count.
func flushedLine(line string) (writes uint64, mappedKiB int, ok bool) {
	n, err := fmt.Sscanf(line, "E2E FLUSHED %d mapped %d", &writes, &mappedKiB)
	return writes, mappedKiB, n == 2 && err == nil
}

// static builds a program that needs no libraries and returns its path.
func static(t *testing.T, root, name, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", pkg, err, text)
	}
	return out
}
