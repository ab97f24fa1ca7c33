//go:build !race

package qcow2

// cutsDefault is how many power cuts are made.
const cutsDefault = 30000
