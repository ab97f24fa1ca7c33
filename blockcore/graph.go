package blockcore

import (
	"fmt"
	"sync"
)

// Graph is the set of nodes of the process and the edges between them and their owners.
//
// Analogous to the graph that QEMU keeps in global lists of BlockDriverStates.
type Graph struct {
	// Guarded by mu.
	mu    sync.Mutex
	nodes map[string]*Node
}

// NewGraph returns an empty graph.
func NewGraph() *Graph { return &Graph{nodes: map[string]*Node{}} }

// NodeOptions describe a new Node.
type NodeOptions struct {
	Name    string // unique in the graph
	Context *AioContext
	Driver  Driver // opened; the node owns it from now on
}

// AddNode puts an opened driver into the graph. On error the driver remains the caller's.
func (g *Graph) AddNode(o NodeOptions) (*Node, error) {
	n := newNode(g, o)
	if err := n.checkLimits(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, taken := g.nodes[o.Name]; taken {
		return nil, fmt.Errorf("Duplicate nodes with node-name='%s'", o.Name)
	}
	g.nodes[o.Name] = n
	return n, nil
}

// Nodes returns all nodes, in no order.
func (g *Graph) Nodes() []*Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*Node, 0, len(g.nodes))
	for _, n := range g.nodes {
		all = append(all, n)
	}
	return all
}

// RemoveNode flushes and closes n, which nobody may use any more. Not on a loop. The node is gone
// from the graph even when flushing or closing fails; the error says what.
func (g *Graph) RemoveNode(n *Node) error {
	g.mu.Lock()
	if n.users > 0 {
		g.mu.Unlock()
		return fmt.Errorf("Node %s is in use", n.name)
	}
	delete(g.nodes, n.name)
	g.mu.Unlock()
	return n.ctx.Do(n.close)
}
