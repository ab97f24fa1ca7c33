package repo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const (
	module = "nbd-dataplane"
	top    = "../.." // the module's directory as seen from this package's
)

// source is one Go file of the module.
type source struct {
	// Immutable.
	path string // slash separated, from the module's directory
	text string
	tree *ast.File
}

func (s source) dir() string  { return path.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

var files = token.NewFileSet()

// sources is every Go file of the module, whatever its build tags. It is read once and not changed.
var sources = sync.OnceValue(func() []source {
	var found []source
	for _, name := range tree(".go") {
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			panic(err)
		}
		parsed, err := parser.ParseFile(files, name, text, parser.ParseComments)
		if err != nil {
			panic(err)
		}
		found = append(found, source{path: name, text: string(text), tree: parsed})
	}
	return found
})

// tree lists the files with one of the endings, leaving out what git ignores and what tests read as data.
func tree(endings ...string) []string {
	var found []string
	err := filepath.WalkDir(top, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, name)
		rel = filepath.ToSlash(rel)
		if entry.IsDir() && leftOut(rel) {
			return filepath.SkipDir
		}
		for _, ending := range endings {
			if !entry.IsDir() && strings.HasSuffix(rel, ending) {
				found = append(found, rel)
			}
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	return found
}

func leftOut(dir string) bool {
	switch dir {
	case ".git", ".cache", "bin", "run":
		return true
	}
	return path.Base(dir) == "testdata"
}

// read is the text of a file of the module.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// at is where a node stands, for messages that an editor can follow.
func at(node ast.Node) string { return files.Position(node.Pos()).String() }
