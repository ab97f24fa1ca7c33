package interop_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// fioErrors runs fio's nbd engine and returns how many errors its jobs counted.
func fioErrors(t *testing.T, uri string, options ...string) int {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json") // fio's standard output carries remarks as well
	args := append([]string{"--name=job", "--ioengine=nbd", "--uri=" + uri, "--output-format=json",
		"--output=" + report, "--randseed=1", "--group_reporting"}, options...)
	client(t, "fio", args...).ok(t)
	return countErrors(t, report)
}

func countErrors(t *testing.T, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var report struct {
		Jobs []struct {
			Error             int `json:"error"`
			TotalErrors       int `json:"total_err"`
			Read, Write, Trim struct {
				Bytes int64 `json:"io_bytes"`
			}
		}
	}
	require.NoError(t, json.Unmarshal(text, &report), ending(string(text)))
	require.NotEmpty(t, report.Jobs)
	errors := 0
	for _, job := range report.Jobs {
		require.Positive(t, job.Read.Bytes+job.Write.Bytes+job.Trim.Bytes)
		errors += job.Error + job.TotalErrors
	}
	return errors
}

// Goal: a deep queue of small writes is read back whole. Method: fio's verify job, each block under its own checksum,
// over each storage.
func TestFioVerify(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		server := serveRaw(t, sparse(t, 32*mib), args...)
		require.Zero(t, fioErrors(t, server.URI(), "--rw=randwrite", "--bs=4k", "--iodepth=32", "--size=32m",
			"--verify=crc32c", "--verify_fatal=1", "--do_verify=1"))
	})
}

// Goal: reads and writes of mixed lengths do not disturb each other. Method: fio's mixed random job under crc32c.
func TestFioMixed(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		server := serveRaw(t, sparse(t, 32*mib), args...)
		require.Zero(t, fioErrors(t, server.URI(), "--rw=randrw", "--bsrange=512-128k", "--blockalign=512",
			"--iodepth=16", "--size=32m", "--verify=crc32c", "--verify_fatal=1"))
	})
}

// Goal: trims among writes are answered as the writes are. Method: fio's trimwrite job, which trims each block before it
// writes it; what is read back is the business of the tests above.
func TestFioTrim(t *testing.T) {
	server := serveRaw(t, sparse(t, 16*mib))
	require.Zero(t, fioErrors(t, server.URI(), "--rw=trimwrite", "--bs=64k", "--iodepth=8", "--size=16m"))
}
