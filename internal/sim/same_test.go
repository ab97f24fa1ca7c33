//go:build !race

package sim

import "testing"

// Goal: a seed that is printed can be run again. Method: the traces of some seeds are the same twice.
func TestSameSeedSameRun(t *testing.T) { simulation.TestSameTwice(t, 100) }
