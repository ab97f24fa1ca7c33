//go:build race

package sim

// The race detector makes everything some seven times slower.
const seedsDefault = 400
