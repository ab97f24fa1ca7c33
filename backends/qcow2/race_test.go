//go:build race

package qcow2

const (
	// cutsDefault is how many power cuts are made; the race detector makes each ten times as long.
	cutsDefault = 3000
	// faultStride is how many requests lie between those that fail, one in each run.
	faultStride = 7
	// faultRows: of the faults of all operations every so manyth is tried. They differ in what fails and not in what goes on at once, and half of the
	// time is spent on the copies of the images.
	faultRows = 4
)
