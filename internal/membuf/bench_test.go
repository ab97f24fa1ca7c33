package membuf

import "testing"

func BenchmarkGetPut(b *testing.B) {
	// The price of a buffer: from a Cache, from the Pool, and of a large one the pool does not keep.
	b.Run("cache/4k", func(b *testing.B) {
		c := NewPool(1 << 20).NewCache()
		for b.Loop() {
			c.Put(c.Get(4096))
		}
	})
	b.Run("pool/4k", func(b *testing.B) {
		p := NewPool(1 << 20)
		for b.Loop() {
			p.Put(p.Get(4096))
		}
	})
	b.Run("pool/1m-not-kept", func(b *testing.B) {
		p := NewPool(0)
		for b.Loop() {
			p.Put(p.Get(1 << 20))
		}
	})
}
