//go:build !race

package qcow2

const (
	// cutsDefault is how many power cuts are made.
	cutsDefault = 30000
	// faultStride is how many requests lie between those that fail, one in each run.
	faultStride = 1
	// faultRows: of the faults of all operations every so manyth is tried.
	faultRows = 1
)
