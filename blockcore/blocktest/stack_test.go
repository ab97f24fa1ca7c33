package blocktest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: the filter that all others are made of changes nothing; method: the suite over fakes of several alignments and over
// one that has no optional ability but writing.
func TestFilterConforms(t *testing.T) {
	onFilter := func(t *testing.T, g *blockcore.Graph, bottom *blockcore.Node) *blockcore.Node {
		n, err := g.AddNode(blockcore.NodeOptions{
			Name: "filter", Driver: &blockcore.Filter{}, Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: bottom}},
		})
		require.NoError(t, err)
		return n
	}
	for _, c := range []struct {
		name   string
		driver func(*Fake) blockcore.Driver
		o      FakeOptions
	}{
		{"bytes", func(f *Fake) blockcore.Driver { return f }, FakeOptions{SizeBytes: 100<<10 + 77, Features: blockcore.Features{FastZero: true}}},
		{"pages", func(f *Fake) blockcore.Driver { return f }, FakeOptions{SizeBytes: 128 << 10, Limits: blockcore.Limits{Align: 4096, TransferMax: 16384}}},
		{"plain", func(f *Fake) blockcore.Driver { return plain{bare{f}, f} }, FakeOptions{SizeBytes: 64 << 10}},
	} {
		t.Run(c.name, func(t *testing.T) {
			TestStack(t, func(*testing.T) Subject {
				f := NewFake(c.o)
				return Subject{Driver: c.driver(f), Reopen: func() blockcore.Driver { return c.driver(f.Reopen()) }}
			}, onFilter)
		})
	}
}

// plain is a Fake that can be written and nothing else.
type plain struct {
	bare
	blockcore.Writer
}
