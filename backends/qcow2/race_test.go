//go:build race

package qcow2

const (
	// cutsDefault is how many power cuts are made; the race detector makes each ten times as long.
	cutsDefault = 3000
	// faultStride is how many requests lie between those that fail, one in each run.
	faultStride = 7
)
