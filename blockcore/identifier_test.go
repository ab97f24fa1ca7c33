package blockcore

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: what QEMU takes for an id is one here, and nothing else is. Method: a table.
func TestIsIdentifier(t *testing.T) {
	for _, text := range []string{"a", "Z", "disk0", "a.b_c-D", "a-"} {
		require.True(t, IsIdentifier(text), text)
	}
	for _, text := range []string{"", "0", "-a", "_a", "#block1", "a b", "a/b", "a\n", "\u00e4", "a\u00e4", "a\x00"} {
		require.False(t, IsIdentifier(text), text)
	}
}
