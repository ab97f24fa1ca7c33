package raw

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// stockCommands are uses of an image by QEMU's tools; IMAGE stands for its path.
var stockCommands = []string{
	"qemu-img info IMAGE",
	"qemu-img info -U IMAGE",
	"qemu-img map -f raw IMAGE",
	"qemu-img convert -f raw -O raw IMAGE IMAGE.copy",
	"qemu-img convert -U -f raw -O raw IMAGE IMAGE.copy",
	"qemu-img compare -f raw -F raw IMAGE IMAGE",
	"qemu-img resize -f raw IMAGE 1M",
	"qemu-img create -f raw IMAGE 1M",
	"qemu-io -f raw -c quit IMAGE",
	"qemu-io -f raw -r -c quit IMAGE",
	"qemu-io -f raw -r -U -c quit IMAGE",
	"qemu-io -f raw -U -c quit IMAGE",
}

// stockOutcome is how a command ended: "ok", or its error without the path.
func stockOutcome(t *testing.T, command, image string) string {
	t.Helper()
	args := strings.Fields(strings.ReplaceAll(command, "IMAGE", image))
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err == nil {
		return "ok"
	}
	for line := range strings.Lines(string(out)) {
		if i := strings.Index(line, "Failed to get"); i >= 0 {
			return strings.TrimSpace(line[i:])
		}
	}
	return strings.TrimSpace(strings.ReplaceAll(string(out), image, "IMAGE"))
}

// holdStock has a program of QEMU's use image until the test is over.
func holdStock(t *testing.T, image string, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], append(args[1:], image)...)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	// qemu-io answers when the image is open.
	fmt.Fprintln(stdin, "length")
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "1 MiB")
}

// holdNBD has qemu-nbd serve image until the test is over.
func holdNBD(t *testing.T, image string, options ...string) {
	t.Helper()
	dir := t.TempDir()
	pid := filepath.Join(dir, "pid")
	args := append([]string{"--fork", "-t", "-f", "raw", "-k", filepath.Join(dir, "socket"), "--pid-file", pid}, options...)
	out, err := exec.Command("qemu-nbd", append(args, image)...).CombinedOutput()
	require.NoError(t, err, string(out))
	t.Cleanup(func() {
		text, err := os.ReadFile(pid)
		require.NoError(t, err)
		require.NoError(t, exec.Command("kill", strings.TrimSpace(string(text))).Run())
	})
}

// Goal: for the tools of QEMU an image that we share has the locks of qemu-nbd; method: each command beside our open file
// and beside a stock qemu-nbd must end the same way.
func TestLocksAsQemuNBD(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	for _, readOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("read-only=%v", readOnly), func(t *testing.T) {
			ours := makeFile(t, t.TempDir(), 1<<20)
			openIn(t, ctx, Options{Path: ours, ReadOnly: readOnly, ShareRW: true})
			theirs := makeFile(t, t.TempDir(), 1<<20)
			var options []string
			if readOnly {
				options = append(options, "-r")
			}
			holdNBD(t, theirs, options...)
			for _, command := range stockCommands {
				require.Equal(t, stockOutcome(t, command, theirs), stockOutcome(t, command, ours), command)
			}
		})
	}
}

// Goal: an image that we do not share refuses a second writer and whoever needs it to stand still, and lets others look;
// method: the outcome of each command as a table. It is what a running QEMU guest's disk gives.
func TestLocksExclusive(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	image := makeFile(t, t.TempDir(), 1<<20)
	openIn(t, ctx, Options{Path: image})
	want := map[string]string{
		"qemu-img info IMAGE":                                "ok",
		"qemu-img info -U IMAGE":                             "ok",
		"qemu-img map -f raw IMAGE":                          "ok",
		"qemu-img convert -f raw -O raw IMAGE IMAGE.copy":    `Failed to get shared "write" lock`,
		"qemu-img convert -U -f raw -O raw IMAGE IMAGE.copy": "ok",
		"qemu-img compare -f raw -F raw IMAGE IMAGE":         "ok",
		"qemu-img resize -f raw IMAGE 1M":                    `Failed to get "write" lock`,
		"qemu-img create -f raw IMAGE 1M":                    `Failed to get "write" lock`,
		"qemu-io -f raw -c quit IMAGE":                       `Failed to get "write" lock`,
		"qemu-io -f raw -r -c quit IMAGE":                    "ok",
		"qemu-io -f raw -r -U -c quit IMAGE":                 "ok",
		"qemu-io -f raw -U -c quit IMAGE":                    "qemu-io: can't open device IMAGE: force-share=on can only be used with read-only images",
	}
	for _, command := range stockCommands {
		require.Equal(t, want[command], stockOutcome(t, command, image), command)
	}
}

// Goal: we respect the locks of QEMU's tools; method: open beside each kind of stock user, and compare qemu-nbd's refusal
// with ours.
func TestLocksOfStockTools(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	for _, c := range []struct {
		name   string
		holder []string
		o      Options
		err    string
	}{
		{"beside qemu-io writing", []string{"qemu-io", "-f", "raw"}, Options{}, `Failed to get shared "write" lock`},
		{"shared beside qemu-io writing", []string{"qemu-io", "-f", "raw"}, Options{ShareRW: true}, ""},
		{"read-only beside qemu-io writing", []string{"qemu-io", "-f", "raw"}, Options{ReadOnly: true}, `Failed to get shared "write" lock`},
		{"forced beside qemu-io writing", []string{"qemu-io", "-f", "raw"}, Options{ReadOnly: true, ForceShare: true}, ""},
		{"beside qemu-io reading", []string{"qemu-io", "-f", "raw", "-r"}, Options{}, ""},
		{"beside qemu-io without locks", []string{"qemu-io", "--image-opts", "-r"}, Options{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := makeFile(t, t.TempDir(), 1<<20)
			if strings.Contains(c.name, "without locks") {
				holdStock(t, "driver=file,locking=off,filename="+image, c.holder...)
			} else {
				holdStock(t, image, c.holder...)
			}
			c.o.Path = image
			f, err := Open(c.o)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				require.ErrorContains(t, err, "Is another process using the image ["+image+"]?")
				return
			}
			require.NoError(t, err)
			require.NoError(t, ctx.Do(f.Close))
		})
	}
}

// Goal: the map of a file is the one that stock qemu-img shows; method: a file of data, holes and an odd end.
func TestMapAsQemuImg(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	image := makeFile(t, t.TempDir(), 1<<20+100)
	f := openIn(t, ctx, Options{Path: image, Discard: DiscardUnmap})
	err := ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(64 << 10)
		defer t.Buffers().Put(p)
		for i := range p {
			p[i] = 1
		}
		for _, off := range []int64{0, 128 << 10, 1<<20 - 4096} {
			if err := f.WriteAt(t, p[:min(int64(len(p)), f.Size()-off)], off, 0); err != nil {
				return err
			}
		}
		return f.Discard(t, blockcore.Range{Offset: 8192, Length: 4096})
	})
	require.NoError(t, err)
	require.NoError(t, ctx.Do(f.Flush))
	out, err := exec.Command("qemu-img", "map", "-U", "-f", "raw", "--output=json", image).Output()
	require.NoError(t, err)
	require.Equal(t, mapFromJSON(t, out), mapOf(t, ctx, f))
}
