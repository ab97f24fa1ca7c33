//go:build !race

package sim

import "testing"

// Goal: a seed that is printed can be run again. Method: the traces of some seeds are the same twice. Not under the race detector: the Go scheduler then runs goroutines
// that become ready together in random order, such as a drain that waits for the bell and another one that waits for the control plane, and either may look first.
func TestSameSeedSameRun(t *testing.T) { simulation.TestSameTwice(t, 100) }
