package membuf

import "bytes"

// AllZero reports whether p is zeroes. It compares p with itself, one word on: the library's comparison is the fastest loop there is.
func AllZero(p []byte) bool {
	const word = 16
	for i := range min(word, len(p)) {
		if p[i] != 0 {
			return false
		}
	}
	return len(p) <= word || bytes.Equal(p[word:], p[:len(p)-word])
}
