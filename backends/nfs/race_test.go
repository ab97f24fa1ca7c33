//go:build race

package nfs

// raceEnabled: the race detector allocates.
const raceEnabled = true

const simSeedsDefault = 150
