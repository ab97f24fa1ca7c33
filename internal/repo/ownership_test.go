package repo

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// headings is the closed list of what fields stand under. One says who may touch the fields below it. The mutex may be
// another object's: "Guarded by graph.mu."
var headings = []string{
	"Immutable",
	"Owned by the context",
	"Changed only by a Tx",
	"Guarded by mu",
	"Safe from anywhere",
}

// moreHeadings are headings of one package only, each with the reason why none of the list fits.
var moreHeadings = []struct{ dir, heading, reason string }{
	{"blockcore/blocktest", "Owned by the goroutine of the test", "a script plays on loops and on none"},
	{"nbd", "Owned by the goroutine of the handshake", "a connection belongs to no context before its export is chosen"},
	{"cmd/nbd-dataplane", "Owned by the goroutine that starts and stops", "it stands outside of every context"},
	{"internal/bench/...", "Owned by the worker's thread", "the load generator has threads of its own and no context"},
	{"qmp", "Owned by the goroutine that reads", "what cuts input into values belongs to one reader and to no context"},
	{"internal/membuf", "Guarded by trimming", "an atomic flag that one goroutine sets serves as the lock"},
}

// A comment in a struct that begins like this means to be a heading.
var meansHeading = regexp.MustCompile(`^(Immutable|Owned by|Changed only by|Guarded by|Protected by|Safe from|Constant after)\b`)

var otherMutex = regexp.MustCompile(`^Guarded by (\w+\.)+mu\b`)

// Goal: ownership is written in one vocabulary. Method: comments inside of struct types that begin like a heading begin
// with one of the list; the sentence and more of them may follow.
func TestOwnershipHeadingsAreFromTheList(t *testing.T) {
	for _, file := range sources() {
		for _, group := range structComments(file) {
			line, _, _ := strings.Cut(group.Text(), "\n")
			if meansHeading.MatchString(line) && !isHeading(file.dir(), line) {
				t.Errorf("%s: %q is not one of %q", at(group), line, headings)
			}
		}
	}
}

func isHeading(dir, line string) bool {
	for _, more := range moreHeadings {
		if covers(more.dir, dir) && begins(line, more.heading) {
			return true
		}
	}
	return otherMutex.MatchString(line) || slices.ContainsFunc(headings, func(h string) bool { return begins(line, h) })
}

// begins is true if nothing but punctuation follows the heading's last word.
func begins(line, heading string) bool {
	rest, ok := strings.CutPrefix(line, heading)
	return ok && (rest == "" || strings.ContainsAny(rest[:1], ".,;:"))
}

// Goal: a mutex is first among the fields it guards, beside the heading that names it. Method: a mutex that is called mu
// stands directly below "Guarded by mu." or directly above it.
func TestMutexStandsAtItsHeading(t *testing.T) {
	for _, file := range sources() {
		if file.isTest() {
			continue
		}
		inspectStructs(file, func(s *ast.StructType) {
			fields := s.Fields.List
			for i, field := range fields {
				near := begins(field.Doc.Text(), "Guarded by mu") ||
					i+1 < len(fields) && begins(fields[i+1].Doc.Text(), "Guarded by mu")
				if isMutex(field) && !near {
					t.Errorf("%s: mu does not stand at a heading \"Guarded by mu.\"", at(field))
				}
			}
		})
	}
}

func isMutex(field *ast.Field) bool {
	selector, ok := field.Type.(*ast.SelectorExpr)
	named := len(field.Names) == 1 && field.Names[0].Name == "mu"
	return ok && named && (selector.Sel.Name == "Mutex" || selector.Sel.Name == "RWMutex")
}

// structComments is every comment between the braces of a struct type, except those behind a field on its line.
func structComments(file source) []*ast.CommentGroup {
	var found []*ast.CommentGroup
	inspectStructs(file, func(s *ast.StructType) {
		trailing := map[*ast.CommentGroup]bool{}
		for _, field := range s.Fields.List {
			trailing[field.Comment] = true
		}
		for _, group := range file.tree.Comments {
			if group.Pos() > s.Fields.Opening && group.End() < s.Fields.Closing && !trailing[group] {
				found = append(found, group)
			}
		}
	})
	return found
}

func inspectStructs(file source, visit func(*ast.StructType)) {
	ast.Inspect(file.tree, func(node ast.Node) bool {
		if s, ok := node.(*ast.StructType); ok {
			visit(s)
		}
		return true
	})
}
