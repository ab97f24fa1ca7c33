package qcowtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Seeds are inputs of a fuzz target, by name, as its function takes them: []byte, byte, uint64.
type Seeds map[string][]any

// Corpus writes seeds to where the go command looks for those of a target, if it is to, and makes sure that they are there.
func Corpus(t *testing.T, target string, seeds Seeds, rewrite bool) {
	t.Helper()
	dir := filepath.Join("testdata", "fuzz", target)
	for name, values := range seeds {
		path := filepath.Join(dir, name)
		if rewrite {
			writeSeed(t, path, values)
		}
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%v; make it with the flag of the test", err)
		}
	}
}

func writeSeed(t *testing.T, path string, values []any) {
	t.Helper()
	var text strings.Builder
	text.WriteString("go test fuzz v1\n")
	for _, v := range values {
		switch v := v.(type) {
		case []byte:
			fmt.Fprintf(&text, "[]byte(%s)\n", strconv.QuoteToASCII(string(v)))
		case byte:
			fmt.Fprintf(&text, "byte('\\x%02x')\n", v)
		case uint64:
			fmt.Fprintf(&text, "uint64(%d)\n", v)
		default:
			t.Fatalf("%T", v)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
