package blockcore

import (
	"runtime"
	"sync"
)

// processors counts the loops of the process. A loop waits in raw system calls, which keep its P (see
// docs/decisions), so each loop brings a P of its own and the rest of the program keeps what it
// had. GOMAXPROCS stops the world for a moment: only when a context starts or ends.
var processors struct {
	sync.Mutex
	initial int
	loops   int
}

func addProcessor()    { countProcessor(1) }
func removeProcessor() { countProcessor(-1) }

func countProcessor(n int) {
	processors.Lock()
	defer processors.Unlock()
	if processors.initial == 0 {
		processors.initial = runtime.GOMAXPROCS(0)
	}
	processors.loops += n
	runtime.GOMAXPROCS(processors.initial + processors.loops)
}
