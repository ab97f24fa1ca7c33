package control

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/qmp"
)

// Goal: whoever names an event is not told that there is none. Method: what the source of this package broadcasts, against the list.
func TestEventsAreListed(t *testing.T) {
	told := []string{qmp.LostEvents}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		source, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, 0)
		require.NoError(t, err)
		ast.Inspect(source, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			to, ok := call.Fun.(*ast.SelectorExpr)
			name, isText := call.Args[0].(*ast.BasicLit)
			if ok && to.Sel.Name == "Broadcast" && isText {
				event, err := strconv.Unquote(name.Value)
				require.NoError(t, err)
				told = append(told, event)
			}
			return true
		})
	}
	slices.Sort(told)
	require.Equal(t, slices.Compact(told), slices.Sorted(slices.Values(Events)))
}
