package nbd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// requirementRow is one row of docs/nbd.md.
type requirementRow struct{ id, level, text, proof string }

// Goal: every requirement of the protocol has a test that says so, or a reason why not. Method: the rows of docs/nbd.md are
// held against the list of requirements and against the sources of the tests they name; work that is pending is a failure.
func TestRequirements(t *testing.T) {
	rows := readRequirementRows(t)
	var listed []string
	for _, r := range rows {
		listed = append(listed, r.id+" "+r.level)
	}
	data, err := os.ReadFile(filepath.Join("testdata", "requirements.txt"))
	require.NoError(t, err)
	require.Equal(t, strings.Fields(strings.ReplaceAll(string(data), " ", "/")), strings.Fields(strings.ReplaceAll(strings.Join(listed, "\n"), " ", "/")),
		"docs/nbd.md has a row for each requirement, in order")

	sources := testSources{}
	for _, r := range rows {
		if problem := sources.judge(t, r); problem != "" {
			t.Errorf("docs/nbd.md: %s: %s", r.id, problem)
		}
	}
}

var (
	requirementLine = regexp.MustCompile(`^\| ([A-Z]+-B?\d+) \| (\S+) \| (.+) \| (.+) \|$`)
	namedTest       = regexp.MustCompile("`(?:([\\w/-]+)\\.)?((?:Test|Fuzz)\\w+)`")
)

func readRequirementRows(t *testing.T) []requirementRow {
	data, err := os.ReadFile(filepath.Join("..", "docs", "nbd.md"))
	require.NoError(t, err)
	var rows []requirementRow
	for line := range strings.Lines(string(data)) {
		if m := requirementLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			rows = append(rows, requirementRow{id: m[1], level: m[2], text: m[3], proof: m[4]})
		}
	}
	return rows
}

// testSources are the texts of the test functions of a directory, by name.
type testSources map[string]map[string]string

// judge returns what is wrong with the proof of a requirement, or nothing.
func (s testSources) judge(t *testing.T, r requirementRow) string {
	switch tests := namedTest.FindAllStringSubmatch(r.proof, -1); {
	case strings.Contains(r.proof, "pending"):
		return r.proof
	case len(tests) == 0 && !strings.HasPrefix(r.proof, "No test: "):
		return "neither a test nor a reason"
	default:
		mentions := regexp.MustCompile(`\b` + regexp.QuoteMeta(r.id) + `\b`)
		for _, m := range tests {
			text, ok := s.of(t, m[1])[m[2]]
			if !ok {
				return "there is no " + m[0]
			}
			if !mentions.MatchString(text) {
				return m[0] + " does not mention it"
			}
		}
	}
	return ""
}

// of reads the tests of a directory below the root of the module; "" is this one.
func (s testSources) of(t *testing.T, dir string) map[string]string {
	if found, ok := s[dir]; ok {
		return found
	}
	path := "."
	if dir != "" {
		path = filepath.Join("..", dir)
	}
	files, err := filepath.Glob(filepath.Join(path, "*_test.go"))
	require.NoError(t, err)
	found := map[string]string{}
	for _, file := range files {
		readTests(t, file, found)
	}
	s[dir] = found
	return found
}

// readTests adds the tests of a file, each with its comment.
func readTests(t *testing.T, file string, found map[string]string) {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	positions := token.NewFileSet()
	tree, err := parser.ParseFile(positions, file, text, parser.ParseComments|parser.SkipObjectResolution)
	require.NoError(t, err)
	for _, d := range tree.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil {
			continue
		}
		from := f.Pos()
		if f.Doc != nil {
			from = f.Doc.Pos()
		}
		found[f.Name.Name] = string(text[positions.Position(from).Offset:positions.Position(f.End()).Offset])
	}
}
