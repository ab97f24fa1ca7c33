//go:build race

package qcow2

// cutsDefault is how many power cuts are made; the race detector makes each ten times as long.
const cutsDefault = 3000
