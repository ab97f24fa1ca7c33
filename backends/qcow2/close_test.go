package qcow2

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: an image that was opened and not let into the graph closes and leaves its file as it was. Method: a node of its name is there already.
func TestCloseOfAnImageThatIsNoNode(t *testing.T) {
	dir := scratch(t)
	one, other := create(t, filepath.Join(dir, "one"), "1M", ""), create(t, filepath.Join(dir, "other"), "1M", "lazy_refcounts=on")
	before, err := os.ReadFile(other)
	require.NoError(t, err)
	r := newRig(t)
	n := r.add(one, Options{})
	r.use(n)
	file := r.file(other, false)
	_, err = put(r.graph, n.Name(), file, Options{})
	require.ErrorContains(t, err, "Duplicate nodes with node-name='"+n.Name()+"'")
	r.close()
	after, err := os.ReadFile(other)
	require.NoError(t, err)
	require.Equal(t, before, after)
}
