//go:build race

package subject

const raceOn = true
