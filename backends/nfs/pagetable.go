package nfs

// leafPages is how many pages one look into the map finds: four for a write of 256 KiB, and little waste where pages are far from each other.
const leafPages = 16

// leaf is neighbours. Owned by the context.
type leaf struct {
	pages [leafPages]*page
	count int
	next  *leaf // of the free ones
}

// pageTable finds pages by their place. It is a map of leaves, as long writes and COMMITs go from one page to its neighbour. Owned by the context.
type pageTable struct {
	leaves map[int64]*leaf
	count  int
	last   *leaf // that was looked at, by its number; nil = none
	number int64
	free   *leaf // empty ones, as many as there were at once
}

// leaf returns the one with that number; nil if there is none.
func (x *pageTable) leaf(number int64) *leaf {
	if x.last == nil || x.number != number {
		l := x.leaves[number]
		if l == nil {
			return nil
		}
		x.last, x.number = l, number
	}
	return x.last
}

// at returns the page with that index; nil if there is none.
func (x *pageTable) at(index int64) *page {
	l := x.leaf(index / leafPages)
	if l == nil {
		return nil
	}
	return l.pages[index%leafPages]
}

// put adds a page. INVARIANT: there is none with its index.
func (x *pageTable) put(g *page) {
	number := g.index / leafPages
	l := x.leaf(number)
	if l == nil {
		if l = x.free; l == nil {
			l = &leaf{}
		}
		x.free, l.next = l.next, nil
		if x.leaves == nil {
			x.leaves = map[int64]*leaf{}
		}
		x.leaves[number] = l
		x.last, x.number = l, number
	}
	l.pages[g.index%leafPages] = g
	l.count++
	x.count++
}

// drop takes away the page with that index. INVARIANT: there is one.
func (x *pageTable) drop(index int64) {
	number := index / leafPages
	l := x.leaf(number)
	l.pages[index%leafPages] = nil
	x.count--
	if l.count--; l.count == 0 {
		delete(x.leaves, number)
		l.next = x.free
		x.last, x.free = nil, l
	}
}
