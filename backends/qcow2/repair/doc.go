// Package repair puts images right that were not closed, when they are opened: it has backends/qcow2/offline, which reads and writes synchronously,
// work on the file of a graph.
//
// A repair reads all metadata of an image, and may take its time. So it is a goroutine of its own (worker.run), which asks the loop for each read and
// write; the loop serves others in between. What is read ahead, and the pieces of long writes, have goroutines of their own for as long as they take; who began them waits for them. The Task that opens the image starts it and waits for its end. It does not take one of the loop's
// workers: it waits for I/O, for which the loop may need them all.
package repair
