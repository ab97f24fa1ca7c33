package repo

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	decisions    = "docs/decisions"
	dependencies = decisions + "/0001-dependencies.md"
)

// Goal: no dependency without a written reason. Method: each direct requirement of go.mod is named on the page.
func TestDependenciesAreDecided(t *testing.T) {
	page := read(t, dependencies)
	for _, line := range strings.Split(read(t, "go.mod"), "\n") {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) < 2 || !strings.HasPrefix(fields[1], "v") || strings.Contains(line, "// indirect") {
			continue
		}
		if !strings.Contains(page, "`"+fields[0]+"`") {
			t.Errorf("go.mod requires %s, which %s does not name", fields[0], dependencies)
		}
	}
}

// Goal: every make command in a document works. Method: the targets named in documents are targets of the Makefile.
func TestMakeTargetsInDocumentsExist(t *testing.T) {
	targets := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`).FindAllStringSubmatch(read(t, "Makefile"), -1) {
		targets[match[1]] = true
	}
	named := regexp.MustCompile("(?m)(?:`|^ {2,}|^)make ([a-z][a-z0-9-]*)")
	for _, document := range tree(".md") {
		for _, match := range named.FindAllStringSubmatch(read(t, document), -1) {
			if !targets[match[1]] {
				t.Errorf("%s names make %s, which is no target", document, match[1])
			}
		}
	}
}

// Goal: links lead somewhere. Method: the relative links of every document are looked up in the tree.
func TestLinksInDocumentsResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, document := range tree(".md") {
		for _, match := range link.FindAllStringSubmatch(read(t, document), -1) {
			target := path.Join(path.Dir(document), match[1])
			if _, err := os.Stat(filepath.Join(top, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", document, match[1])
			}
		}
	}
}

// Goal: the index of decisions is whole. Method: each page of the directory is linked from its index.
func TestDecisionsAreIndexed(t *testing.T) {
	index := read(t, decisions+"/README.md")
	for _, page := range tree(".md") {
		name := path.Base(page)
		if path.Dir(page) == decisions && name != "README.md" && !strings.Contains(index, "("+name+")") {
			t.Errorf("%s is not linked from the index of decisions", page)
		}
	}
}

// Goal: a script can be run as the documents say. Method: the scripts and .ci/run are executable and say bash.
func TestScriptsAreExecutable(t *testing.T) {
	scripts, err := filepath.Glob(filepath.Join(top, "scripts", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range append(scripts, filepath.Join(top, ".ci/run")) {
		info, err := os.Stat(script)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(script)
		if err != nil || info.IsDir() {
			continue
		}
		if strings.HasPrefix(string(text), "#!") && info.Mode().Perm()&0o111 == 0 {
			t.Errorf("%s is not executable", script)
		}
	}
}
