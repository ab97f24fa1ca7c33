package repo

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const scenarioPage = "docs/testing.md"

// scenarioIDs is how many scenarios there are of each kind.
var scenarioIDs = []struct {
	kind  string
	count int
}{
	{"T-D", 32}, {"T-G", 5}, {"T-I", 22}, {"T-T", 17}, {"T-A", 17}, {"T-M", 6}, {"T-J", 16}, {"T-B", 2}, {"T-L", 2}, {"T-N", 1},
	{"T-P", 6}, {"T-C", 1}, {"T-X", 15},
}

var (
	scenarioLine = regexp.MustCompile(`(?m)^\| (T-[A-Z]\d+) \| .+ \| (.+) \|$`)
	bugClassLine = regexp.MustCompile(`(?m)^\| (4\.\d+) \| .+ \| (.+) \|$`)
	namedScript  = regexp.MustCompile("`([\\w/-]+\\.txt)`")
	namedTest    = regexp.MustCompile("`([\\w/-]+)\\.((?:Test|Fuzz)\\w+)`")
)

// Goal: every scenario has a test that bears its id, or a reason why not. Method: the rows of the page are held against the list of ids, the scripts
// and the tests that they name.
func TestScenariosHaveTests(t *testing.T) {
	var want, have []string
	for _, kind := range scenarioIDs {
		for i := range kind.count {
			want = append(want, fmt.Sprintf("%s%d", kind.kind, i+1))
		}
	}
	for _, row := range scenarioLine.FindAllStringSubmatch(read(t, scenarioPage), -1) {
		have = append(have, row[1])
		if problem := judgeScenario(row[1], row[2]); problem != "" {
			t.Errorf("%s: %s: %s", scenarioPage, row[1], problem)
		}
	}
	if strings.Join(want, " ") != strings.Join(have, " ") {
		t.Errorf("%s has rows for %q, not for each scenario in order: %q", scenarioPage, have, want)
	}
}

// judgeScenario returns what is wrong with what a row says, or nothing.
func judgeScenario(id, proof string) string {
	if strings.HasPrefix(proof, "No test: ") {
		return ""
	}
	scripts, tests := namedScript.FindAllStringSubmatch(proof, -1), namedTest.FindAllStringSubmatch(proof, -1)
	if len(scripts)+len(tests) == 0 {
		return "neither a test nor a reason"
	}
	heading := regexp.MustCompile(`(?m)^=== ` + id + `(-[\w-]+|[a-z])? `)
	for _, script := range scripts {
		text, err := os.ReadFile(filepath.Join(top, script[1]))
		if err != nil {
			return err.Error()
		}
		if !heading.Match(text) {
			return script[1] + " has no such scenario"
		}
	}
	mention := regexp.MustCompile(`(\b|_)` + strings.ReplaceAll(id, "-", "[-_]") + `(\b|_)`)
	for _, test := range tests {
		text, found := testSource(test[1], test[2])
		if !found {
			return "there is no " + test[0]
		}
		if !mention.MatchString(text) {
			return test[0] + " does not mention it"
		}
	}
	return ""
}

// testSource returns the text of a test, with its comment.
func testSource(dir, name string) (string, bool) {
	for _, file := range sources() {
		if !file.isTest() || file.dir() != dir {
			continue
		}
		for _, decl := range functions(file) {
			if decl.Recv != nil || decl.Name.Name != name {
				continue
			}
			from := decl.Pos()
			if decl.Doc != nil {
				from = decl.Doc.Pos()
			}
			return file.text[files.Position(from).Offset:files.Position(decl.End()).Offset], true
		}
	}
	return "", false
}

// Goal: each class of bugs is watched for. Method: the tests and scripts that the page names are there.
func TestBugClassesHaveTests(t *testing.T) {
	rows := bugClassLine.FindAllStringSubmatch(read(t, scenarioPage), -1)
	if len(rows) != 13 {
		t.Errorf("%s has %d classes of bugs, not 13", scenarioPage, len(rows))
	}
	for _, row := range rows {
		for _, script := range namedScript.FindAllStringSubmatch(row[2], -1) {
			if _, err := os.Stat(filepath.Join(top, script[1])); err != nil {
				t.Errorf("%s: %s: %v", scenarioPage, row[1], err)
			}
		}
		for _, test := range namedTest.FindAllStringSubmatch(row[2], -1) {
			if _, found := testSource(test[1], test[2]); !found {
				t.Errorf("%s: %s: there is no %s", scenarioPage, row[1], test[0])
			}
		}
	}
}
