package offline

import (
	"io"
	"syscall"
)

// memory is a File in memory that may be much longer than what was written to it.
type memory struct {
	data      []byte // the beginning; zeroes follow
	sizeBytes int64
}

// memoryMax is how much a memory holds; writes behind it fail.
const memoryMax = 4 << 20

func (m *memory) ReadAt(p []byte, at int64) (int, error) {
	if at < 0 {
		return 0, syscall.EINVAL
	}
	if at >= m.sizeBytes {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), m.sizeBytes-at))
	clear(p[:n])
	if at < int64(len(m.data)) {
		copy(p[:n], m.data[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	end := at + int64(len(p))
	if at < 0 || end > memoryMax {
		return 0, syscall.ENOSPC
	}
	if end > int64(len(m.data)) {
		m.data = append(m.data, make([]byte, end-int64(len(m.data)))...)
	}
	m.sizeBytes = max(m.sizeBytes, end)
	return copy(m.data[at:], p), nil
}

func (m *memory) Size() (int64, error) { return m.sizeBytes, nil }

func (m *memory) Truncate(sizeBytes int64) error {
	if sizeBytes < int64(len(m.data)) {
		m.data = m.data[:sizeBytes]
	}
	m.sizeBytes = sizeBytes
	return nil
}

func (m *memory) Sync() error { return nil }
