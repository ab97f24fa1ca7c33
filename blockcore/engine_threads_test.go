package blockcore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWaitOnOldKernels(t *testing.T) {
	// Kernels without epoll_pwait2 wait in milliseconds, rounded up: the eventfd of an engine without a loop is written before a wait
	// without limit, and found once; waits that may not last find nothing.
	made, err := newThreadsEngine(&AioContext{})
	require.NoError(t, err)
	e := made.(*threadsEngine)
	defer e.close()
	e.wake()
	require.Equal(t, 1, e.epollWaitMillis(-1))
	require.Zero(t, e.epollWaitMillis(0))
	require.Zero(t, e.epollWaitMillis(time.Microsecond))
	e.wake()
	require.Equal(t, 1, e.epollWait(time.Hour, true))
}
