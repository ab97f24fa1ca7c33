// Package dummy is the least NBD server that can be measured: one connection, one
// goroutine, bytes in memory, all the requests of a receive answered by one send. Nobody
// should store anything in it. The benchmark measures it to know what the client can do
// at most, and the tests of the load generator break it in chosen ways.
//
// Goroutines: Serve starts connection.serve for each connection; it ends with its
// connection.
package dummy
