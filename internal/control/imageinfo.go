package control

import (
	"math/bits"

	"nbd-dataplane/blockcore"
)

// specific is what only one image format has.
type specific struct {
	Type string `json:"type"`
	Data any    `json:"data"`
}

// describer is the driver of an image that has more to tell.
type describer interface {
	Description(t *blockcore.Task) (kind string, data any, dirty bool)
}

// occupant is a driver that takes up space.
type occupant interface {
	// UsedBytes returns how much, and false where that cannot be told at once.
	UsedBytes(t *blockcore.Task) (usedBytes int64, ok bool)
}

// describe adds what the drivers of a node and of those below it tell of themselves. A loop that is going tells nothing.
func (info *imageInfo) describe(n *blockcore.Node) {
	if used, ok := usedBytes(n); ok {
		info.ActualSize = &used
	}
	if c, ok := keeperBelow(n).node.Driver().(clustered); ok {
		info.ClusterSize = c.ClusterBytes()
	}
	d, ok := n.Driver().(describer)
	if !ok {
		return
	}
	_ = n.Context().Do(func(t *blockcore.Task) error {
		s := &specific{}
		s.Type, s.Data, info.DirtyFlag = d.Description(t)
		info.Specific = s
		return nil
	})
}

// usedBytes is the space that a node takes up, without the images below it.
func usedBytes(n *blockcore.Node) (sum int64, ok bool) {
	if d, is := n.Driver().(occupant); is {
		err := n.Context().Do(func(t *blockcore.Task) error {
			sum, ok = d.UsedBytes(t)
			return nil
		})
		return sum, ok && err == nil
	}
	for _, e := range n.Children() {
		if e.Role() != blockcore.RoleFile && e.Role() != blockcore.RoleData {
			continue
		}
		one, known := usedBytes(e.Node())
		if !known {
			return 0, false
		}
		sum, ok = sum+one, true
	}
	return sum, ok
}

// clustered is a driver whose image is made of clusters.
type clustered interface{ ClusterBytes() int64 }

// Granularities of bitmaps that are taken when nobody says: QEMU's.
const granularityBitsLow, granularityBitsHigh = 12, 16

// defaultGranularityBits is that of the clusters of an image, within bounds.
func defaultGranularityBits(n *blockcore.Node) uint {
	for ; n != nil; n = childOf(n, blockcore.RoleFile) {
		if c, ok := n.Driver().(clustered); ok {
			return min(max(uint(bits.TrailingZeros64(uint64(c.ClusterBytes()))), granularityBitsLow), granularityBitsHigh)
		}
	}
	return granularityBitsHigh
}
