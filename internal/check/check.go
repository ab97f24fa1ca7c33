// Package check holds the assertions of the program. That is the cheap ones that are
// always on (Invariant) and the thorough ones that cost too much for production
// and run only in builds with the check tag (guard them with Enabled).
package check

import "fmt"

// Invariant panics when ok is false. It is for our own broken invariants only, never
// for input: nothing a client, an image or an operator sends may reach it.
func Invariant(ok bool, format string, args ...any) {
	if !ok {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}
