package raw

import (
	"sync"
	"sync/atomic"
)

// neighbours are the devices that the open files of the process lie on. A store to a mapping that waits for its device, hung or frozen,
// holds a processor of the Go runtime; the next garbage collection then waits as well, and everybody with it. That is no loss for
// those whose disk hangs too, and would be one for all others. So files are mapped by themselves only while there are no others.
type neighbours struct {
	// Guarded by mu.
	mu    sync.Mutex
	files map[uint64]int // by device

	// Safe from anywhere.
	several atomic.Bool
}

// served are those of the process.
var served neighbours

// enter counts a file on a device.
func (n *neighbours) enter(device uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.files == nil {
		n.files = map[uint64]int{}
	}
	n.files[device]++
	n.several.Store(len(n.files) > 1)
}

// leave takes it off again.
func (n *neighbours) leave(device uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.files[device]--; n.files[device] == 0 {
		delete(n.files, device)
	}
	n.several.Store(len(n.files) > 1)
}
