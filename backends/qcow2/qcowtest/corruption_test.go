package qcowtest

import (
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "record anew what the stock tools say")

// Goal: what is recorded is what the installed tools do. Method: every corruption is made, run into, checked and repaired
// by them again, and compared with the record.
func TestReactionsAreRecorded(t *testing.T) {
	var seen []Reaction
	for _, c := range Corruptions {
		seen = append(seen, c.Observe(t, t.TempDir()))
	}
	if *rewrite {
		text, err := json.MarshalIndent(seen, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/corruptions.json", append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	recorded, err := Reactions()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(recorded, seen); diff != "" {
		t.Errorf("the record (-) and the tools (+) differ:\n%s", diff)
	}
}
