package repo

import (
	"go/ast"
	"regexp"
	"strings"
	"testing"
)

// forbiddenInTests are calls that make a test's verdict depend on luck or on nobody looking.
var forbiddenInTests = []struct{ receiver, name, reason string }{
	{"t", "Skip", "a test that skips itself is green for nothing"},
	{"t", "Skipf", "a test that skips itself is green for nothing"},
	{"t", "SkipNow", "a test that skips itself is green for nothing"},
	{"b", "Skip", "a benchmark that skips itself measures nothing"},
	{"testing", "Short", "there is one set of tests"},
	{"time", "Sleep", "wait for an event or a condition"},
}

// Goal: tests do not skip themselves and do not guess at time. Method: the calls are looked for in the syntax trees.
func TestTestsNeitherSkipNorSleep(t *testing.T) {
	for _, file := range sources() {
		if !file.isTest() {
			continue
		}
		ast.Inspect(file.tree, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			for _, f := range forbiddenInTests {
				if calls(call, f.receiver, f.name) {
					t.Errorf("%s: %s.%s: %s", at(call), f.receiver, f.name, f.reason)
				}
			}
			return true
		})
	}
}

// Goal: a script of the command line that waits in vain says so, and for what. Method: loops of the shell are looked for that do nothing but ask again.
func TestScriptsWaitWithABound(t *testing.T) {
	asks := regexp.MustCompile(`\buntil\b.*\bdo\b|\bdo (:|true); done`)
	for _, script := range tree(".txtar") {
		for n, line := range strings.Split(read(t, script), "\n") {
			if loop := asks.FindString(line); loop != "" {
				t.Errorf("%s:%d: %s: use await PATTERN COMMAND", script, n+1, loop)
			}
		}
	}
}

// Goal: a stranger can read why a test exists. Method: each Test and Fuzz function has a comment above it or as the
// first thing in its body.
func TestTestsOpenWithASentence(t *testing.T) {
	isTest := regexp.MustCompile(`^(Test|Fuzz)[A-Z0-9_]`) // TestMain is none
	for _, file := range sources() {
		if !file.isTest() {
			continue
		}
		for _, decl := range functions(file) {
			name := decl.Name.Name
			if decl.Recv == nil && name != "TestMain" && isTest.MatchString(name) && decl.Doc == nil && !opensWithComment(file, decl) {
				t.Errorf("%s: %s does not say its goal and method", at(decl), decl.Name.Name)
			}
		}
	}
}

func opensWithComment(file source, decl *ast.FuncDecl) bool {
	first := decl.Body.Rbrace
	if len(decl.Body.List) > 0 {
		first = decl.Body.List[0].Pos()
	}
	for _, group := range file.tree.Comments {
		if group.Pos() > decl.Body.Lbrace && group.Pos() < first {
			return true
		}
	}
	return false
}

func calls(call *ast.CallExpr, receiver, name string) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || selector.Sel.Name != name {
		return false
	}
	ident, ok := selector.X.(*ast.Ident)
	return ok && ident.Name == receiver
}
