// Package membuf hands out I/O buffers that lie outside the Go heap.
//
// The kernel reads and writes them behind the back of the Go runtime (io_uring), so they must
// neither move nor be collected; O_DIRECT wants them aligned; and their number is the memory that
// clients can pin, so what is idle goes back to the kernel instead of staying with a collector.
//
// A Pool serves everybody. A Cache stands in front of it for one AioContext and needs no lock:
//
//	Cache.Get -> its own stack --empty--> Pool: warm -> cold -> mmap
//	Cache.Put -> its own stack --full---> Pool: warm --over cachedMax--> kernel
//
// Sizes are powers of two from 4 KiB to 128 MiB; what is larger gets a mapping of its own, never kept.
// Buffers up to 256 KiB are carved out of slabs. A slab stays mapped for the life of the pool,
// because buffers of it are in use at any time; the pages of its idle buffers are given back
// (MADV_DONTNEED), which leaves only address space behind. Such a buffer is "cold": using it costs
// the page faults of fresh memory. A "warm" one has its pages, and the warmest (the last that came
// back) is used first.
//
// The package starts no goroutine. Lock: Pool.mu is a leaf; the kernel is called under it only to
// map memory, giving back happens without it.
package membuf
