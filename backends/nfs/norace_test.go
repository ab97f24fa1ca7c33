//go:build !race

package nfs

const (
	raceEnabled     = false
	simSeedsDefault = 1000
)
