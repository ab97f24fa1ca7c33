package blockcore_test

import (
	"testing"

	"nbd-dataplane/blockcore/blocktest"
)

func TestScenarios(t *testing.T) {
	// The scenarios of QEMU's unit tests, and what its bugs have taught, as scripts on a graph of test drivers whose every word is compared with
	// a golden transcript. Each has its id in front of its title.
	blocktest.RunScripts(t, "testdata/scenarios/*.txt")
}
