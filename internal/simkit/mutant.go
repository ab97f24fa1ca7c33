package simkit

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Mutant is a mistake that a simulation has to find: in a file stands one text in place of another, and perhaps more at its end, which may use sync. It is an
// alias so that tables need not name the fields.
type Mutant = struct{ Mistake, File, Old, New, Also string }

// TestMutants makes mistakes in the files of a directory, one at a time, by an overlay of the go command, and runs the seeds of the package it is called from: they
// must fail, by a check and not by a hang. args are those of go test. Without the flag only the texts that are to be replaced are looked for.
func (f *Flags) TestMutants(t *testing.T, dir string, list []Mutant, args ...string) {
	for _, m := range list {
		file, err := filepath.Abs(filepath.Join(dir, m.File))
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), m.Old); n != 1 {
			t.Errorf("%s: what is to be replaced in %s is there %d times", m.Mistake, m.File, n)
			continue
		}
		if *f.mutants {
			t.Run(m.Mistake, func(t *testing.T) { runMutant(t, file, mutated(m, string(text)), args) })
		}
	}
}

// mutated is the text of a file with the mistake.
func mutated(m Mutant, text string) string {
	text = strings.Replace(text, m.Old, m.New, 1) + m.Also
	if m.Also != "" {
		text = strings.Replace(text, "import (", "import (\n\t\"sync\"", 1)
	}
	return text
}

// runMutant runs the seeds with another text of a file.
func runMutant(t *testing.T, file, text string, args []string) {
	dir := t.TempDir()
	mutant, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{file: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{mutant: text, overlay: string(list)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("go", append([]string{"test", "-vet=off", "-overlay", overlay, "-count=1"}, args...)...).CombinedOutput()
	_, found, _ := strings.Cut(string(out), ": seed ")
	if err == nil || found == "" {
		t.Fatalf("not found: %v\n%s", err, out)
	}
	line, _, _ := strings.Cut(found, "\n")
	t.Log("seed " + line)
}
