//go:build race

package blocktest

// sequences is how many random sequences are made; each takes ten times as long as without the race detector, and is much like the others to it.
const sequences = 15
