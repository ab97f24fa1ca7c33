package repo

import (
	"go/ast"
	"regexp"
	"strings"
	"testing"
)

const linesMax = 500

// longFiles may pass linesMax, each for the reason given.
var longFiles = map[string]string{}

// Goal: files stay nouns or phases that can be read in one sitting. Method: lines are counted, tests left out.
func TestFilesAreShort(t *testing.T) {
	for _, file := range sources() {
		lines := strings.Count(file.text, "\n")
		_, excused := longFiles[file.path]
		switch {
		case file.isTest():
		case lines > linesMax && !excused:
			t.Errorf("%s has %d lines; more than %d need a reason in longFiles", file.path, lines, linesMax)
		case lines <= linesMax && excused:
			t.Errorf("%s has %d lines and needs its entry in longFiles no more", file.path, lines)
		}
	}
}

// Goal: what is unfinished is in the issues and not in the code. Method: the usual marks are looked for; they are
// spelled in halves here, so that this file does not find itself.
func TestNoUnfinishedMarks(t *testing.T) {
	marks := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
	for _, file := range sources() {
		for n, line := range strings.Split(file.text, "\n") {
			if mark := marks.FindString(line); mark != "" {
				t.Errorf("%s:%d: %s", file.path, n+1, mark)
			}
		}
	}
}

// Goal: sources can be read and searched anywhere. Method: every byte of a Go file is ASCII.
func TestSourcesAreASCII(t *testing.T) {
	for _, file := range sources() {
		for n, line := range strings.Split(file.text, "\n") {
			if strings.ContainsFunc(line, func(r rune) bool { return r > 126 }) {
				t.Errorf("%s:%d: not ASCII: %q", file.path, n+1, line)
			}
		}
	}
}

// Goal: a reader of go doc learns what a package is for. Method: each package has a file with a package comment.
func TestPackagesHaveDocComments(t *testing.T) {
	documented := map[string]bool{}
	for _, file := range sources() {
		if file.isTest() {
			continue
		}
		documented[file.dir()] = documented[file.dir()] || file.tree.Doc != nil
	}
	for dir, has := range documented {
		if !has {
			t.Errorf("package %s has no doc comment", dir)
		}
	}
}

// Goal: the API of every package is documented. Method: exported functions, methods of exported types, and types carry a
// comment; the program's own package is nobody's API.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, file := range sources() {
		if file.isTest() || file.tree.Name.Name == "main" {
			continue
		}
		for _, decl := range file.tree.Decls {
			if name := undocumented(decl); name != nil {
				t.Errorf("%s: %s is exported and has no comment", at(name), name.Name)
			}
		}
	}
}

// speaksForItself are methods of the standard library's interfaces, whose meaning is fixed there.
var speaksForItself = map[string]bool{
	"Error": true, "Is": true, "Unwrap": true, "String": true, "GoString": true,
	"Len": true, "Less": true, "Swap": true,
}

func undocumented(decl ast.Decl) *ast.Ident {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && receiverIsExported(d) && !speaksForItself[d.Name.Name] {
			return d.Name
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			if named, ok := spec.(*ast.TypeSpec); ok && named.Name.IsExported() && d.Doc == nil && named.Doc == nil && named.Comment == nil {
				return named.Name
			}
		}
	}
	return nil
}

// receiverIsExported is true for plain functions as well.
func receiverIsExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	exported := false
	ast.Inspect(d.Recv.List[0].Type, func(node ast.Node) bool {
		if name, ok := node.(*ast.Ident); ok {
			exported = exported || name.IsExported()
		}
		return true
	})
	return exported
}

func functions(file source) []*ast.FuncDecl {
	var found []*ast.FuncDecl
	for _, decl := range file.tree.Decls {
		if d, ok := decl.(*ast.FuncDecl); ok {
			found = append(found, d)
		}
	}
	return found
}
