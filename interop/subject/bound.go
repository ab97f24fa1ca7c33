package subject

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// bound is a program that is to be started.
type bound struct {
	cmd     *exec.Cmd
	started chan<- error
}

// starts leads to the goroutine that starts them.
var starts = sync.OnceValue(func() chan<- bound {
	c := make(chan bound)
	go startLoop(c)
	return c
})

// startLoop keeps its thread for good: the kernel delivers Pdeathsig when the thread that forked ends, not when the process does (prctl(2), PR_SET_PDEATHSIG).
func startLoop(c <-chan bound) {
	runtime.LockOSThread()
	for b := range c {
		b.started <- b.cmd.Start()
	}
}

// Start starts a program that ends with this process, however that ends: tests that are killed leave no servers behind.
func Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error, 1)
	starts() <- bound{cmd, started}
	return <-started
}
