package loadgen

// Verify mode writes to each byte of the export a value that follows from its offset
// alone. So any reader can check any range, whoever wrote it and however often, and a
// block that went to the wrong place shows up as well as one that was torn.

// patternWord is the value of the eight bytes at the multiple of eight word*8.
func patternWord(word uint64) uint64 {
	x := (word + 1) * 0x9e3779b97f4a7c15
	x ^= x >> 32
	return x * 0xd6e8feb86659fd93
}

// patternByte is the value of the byte at offset.
func patternByte(offset int64) byte {
	return byte(patternWord(uint64(offset)>>3) >> (8 * (uint(offset) & 7)))
}

// fillPattern fills b with the pattern of offset.
func fillPattern(b []byte, offset int64) {
	for i := range b {
		b[i] = patternByte(offset + int64(i))
	}
}

// mismatch returns the index of the first byte of b that differs from the pattern of
// offset, or -1.
func mismatch(b []byte, offset int64) int {
	for i := range b {
		if b[i] != patternByte(offset+int64(i)) {
			return i
		}
	}
	return -1
}
