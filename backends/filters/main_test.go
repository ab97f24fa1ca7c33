package filters

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nbd-dataplane/blockcore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// made ends the test if a filter could not be made.
func made[F blockcore.Driver](t *testing.T) func(f F, err error) blockcore.Driver {
	return func(f F, err error) blockcore.Driver {
		t.Helper()
		require.NoError(t, err)
		return f
	}
}

// put puts a driver on top of a node.
func put(t *testing.T, g *blockcore.Graph, name string, d blockcore.Driver, below *blockcore.Node) *blockcore.Node {
	t.Helper()
	n, err := g.AddNode(blockcore.NodeOptions{
		Name: name, Driver: d, Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: below}},
	})
	require.NoError(t, err)
	return n
}

// kinds are one of each filter, set up to change nothing that a client could see but time.
var kinds = []struct {
	name string
	make func(t *testing.T) blockcore.Driver
}{
	{"throttle", func(t *testing.T) blockcore.Driver {
		group := blockcore.NewThrottleGroup("group")
		require.NoError(t, group.Configure(blockcore.ThrottleConfig{IOPSTotal: blockcore.ThrottleLimit{Avg: 1_000_000}}))
		return made[*Throttle](t)(NewThrottle(ThrottleOptions{Group: group}))
	}},
	{"copy-on-read", func(t *testing.T) blockcore.Driver { return NewCopyOnRead() }},
	{"inject", func(t *testing.T) blockcore.Driver {
		return made[*Inject](t)(NewInject(InjectOptions{Rules: []InjectRule{{Delay: 1, Probability: 0.1}}}))
	}},
	{"raw", func(t *testing.T) blockcore.Driver { return made[*Raw](t)(NewRaw(RawOptions{})) }},
}
