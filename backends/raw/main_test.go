package raw

import (
	"flag"
	"os"
	"testing"
)

// checksRandom is how many random sequences each way to open a file gets unless -rapid.checks says otherwise: there are some
// forty ways, and each sequence syncs a few times.
const checksRandom = "20"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		flag.Set("rapid.checks", checksRandom)
	}
	os.Exit(m.Run())
}
