//go:build !race

package blocktest

// sequences is how many random sequences are made: as many as rapid makes by itself.
const sequences = sequencesRapid
