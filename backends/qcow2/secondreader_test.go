package qcow2

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader"
	second "github.com/lima-vm/go-qcow2reader/image/qcow2"
	"github.com/lima-vm/go-qcow2reader/log"
	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
)

// setUpSecondOpinion gives go-qcow2reader what it lacks: zstd, and decompressors that fill all of a buffer with one Read, without an error.
func setUpSecondOpinion() {
	log.SetWarnFunc(func(string) {}) // of what is new to it
	second.SetDecompressor(second.CompressionTypeZlib, func(r io.Reader) (io.ReadCloser, error) { return inMemory(flate.NewReader(r)) })
	second.SetDecompressor(second.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return inMemory(d)
	})
}

// inMemory decompresses a cluster. What follows it in its last sector is not of its stream.
func inMemory(r io.Reader) (io.ReadCloser, error) {
	p, err := io.ReadAll(io.LimitReader(r, 1<<format.ClusterBitsMax))
	if len(p) == 0 {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(p)), nil
}

// padded is a file that goes on with zeroes: QEMU ends a file behind the last byte of a compressed cluster, and this reader wants whole sectors.
type padded struct{ *os.File }

// ReadAt implements io.ReaderAt.
func (f padded) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		clear(p[n:])
		return len(p), nil
	}
	return n, err
}

// secondOpinion is what a reader sees of an image that neither QEMU's authors nor we have written. It knows no external data files.
func secondOpinion(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	image, err := qcow2reader.OpenWithType(padded{f}, second.Type)
	require.NoError(t, err)
	defer image.Close()
	p, err := io.ReadAll(io.NewSectionReader(image, 0, image.Size()))
	require.NoError(t, err)
	return p
}
