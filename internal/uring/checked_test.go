package uring

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/check"
)

func TestCheckBuildRefusesGoMemory(t *testing.T) {
	// A check build refuses to submit an address that is not memory for the kernel: each way to smuggle one in is tried. Other
	// builds have nothing to show here.
	if !check.Enabled {
		return
	}
	goMemory := make([]byte, 4096)
	table := map[string]func(s *SQE, mem []byte){
		"read":         func(s *SQE, mem []byte) { s.Read(0, address(goMemory), 1, 0, 0) },
		"write":        func(s *SQE, mem []byte) { s.Write(0, address(goMemory), 1, 0, 0) },
		"recv":         func(s *SQE, mem []byte) { s.Recv(0, address(goMemory), 1, 0) },
		"past the end": func(s *SQE, mem []byte) { s.Send(0, address(mem), 64<<20, 0) },
		"timespec":     func(s *SQE, mem []byte) { s.Timeout(address(goMemory), 0, 0) },
		"vector":       func(s *SQE, mem []byte) { s.Readv(0, address(goMemory), 1, 0, 0) },
		"buffer of a vector": func(s *SQE, mem []byte) {
			*(*unix.Iovec)(unsafe.Pointer(&mem[0])) = unix.Iovec{Base: &goMemory[0], Len: 1}
			s.Writev(0, address(mem), 1, 0, 0)
		},
		"message": func(s *SQE, mem []byte) { s.Sendmsg(0, address(goMemory), 0) },
		"vector of a message": func(s *SQE, mem []byte) {
			*(*unix.Msghdr)(unsafe.Pointer(&mem[0])) = unix.Msghdr{Iov: &unix.Iovec{}, Iovlen: 1}
			s.Sendmsg(0, address(mem), 0)
		},
	}
	for name, smuggle := range table {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, Params{Entries: 4}, 0)
			mem := h.pool.Get(4096)
			defer h.pool.Put(mem)
			clear(mem)
			smuggle(h.next(t, 1), mem)
			defer func() { require.Contains(t, recover(), "not memory for the kernel") }()
			_ = h.Submit()
		})
	}
}
