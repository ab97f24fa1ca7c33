package offline

import (
	"maps"
	"slices"
)

// counts are the references that a check has found to each cluster of the file. It takes a byte a cluster; a file that is
// larger than that would be worth, because most of it is a hole, only pages for what is referred to.
type counts struct {
	max      uint64 // what a refcount of the image can hold
	clusters int64  // one more than the last cluster that is looked at

	dense []uint8
	pages map[int64]*countPage
	last  struct { // the page that was used last
		index int64
		page  *countPage
	}
	// large are counts that a byte cannot hold, which has the value many.
	large map[int64]uint64
}

const (
	denseMax  = 1 << 26 // clusters: 64 MiB of counts
	pageBits  = 6
	many      = 255
	pageCount = 1 << pageBits
)

type countPage [pageCount]uint8

func newCounts(clusters int64, limit uint64) *counts {
	c := &counts{max: limit, clusters: clusters, large: map[int64]uint64{}}
	if clusters < denseMax {
		c.dense = make([]uint8, clusters+1) // what begins in the file may end in the cluster behind it
		return c
	}
	c.pages = map[int64]*countPage{}
	return c
}

// at is where a cluster's byte is; nil = there is none, and the count is zero.
func (c *counts) at(cluster int64, create bool) *uint8 {
	if c.dense != nil {
		if cluster >= int64(len(c.dense)) {
			if !create {
				return nil
			}
			c.dense = append(c.dense, make([]uint8, cluster-int64(len(c.dense))+1)...)
		}
		return &c.dense[cluster]
	}
	index := cluster >> pageBits
	if c.last.page == nil || c.last.index != index {
		page := c.pages[index]
		if page == nil && !create {
			return nil
		}
		if page == nil {
			page = new(countPage)
			c.pages[index] = page
		}
		c.last.index, c.last.page = index, page
	}
	return &c.last.page[cluster&(pageCount-1)]
}

func (c *counts) of(cluster int64) uint64 {
	b := c.at(cluster, false)
	switch {
	case b == nil:
		return 0
	case *b == many:
		return c.large[cluster]
	}
	return uint64(*b)
}

// add counts more references to a cluster. It is false if the image could not hold the sum; the count stays at the most then.
func (c *counts) add(cluster int64, more uint64) bool {
	c.clusters = max(c.clusters, cluster+1)
	b := c.at(cluster, true)
	n := uint64(*b)
	if n == many {
		n = c.large[cluster]
	}
	fits := more <= c.max-n
	n = min(n+min(more, c.max-n), c.max)
	if n < many {
		*b = uint8(n)
		return fits
	}
	*b = many
	c.large[cluster] = n
	return fits
}

// blocks are the refcount blocks, by number and in order, in which there is anything but zeroes. A block has 1<<bits counts.
func (c *counts) blocks(bits uint) []int64 {
	found := map[int64]struct{}{}
	if c.dense != nil {
		var all []int64
		for from := int64(0); from < int64(len(c.dense)); from += 1 << bits {
			part := c.dense[from:min(from+1<<bits, int64(len(c.dense)))]
			if slices.ContainsFunc(part, func(n uint8) bool { return n != 0 }) {
				all = append(all, from>>bits)
			}
		}
		return all
	}
	for index, page := range c.pages {
		for n, count := range page {
			if count != 0 {
				found[(index<<pageBits+int64(n))>>bits] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}
