// Program nbd-dataplane serves disk images and block devices over NBD.
//
// This package is wiring: it turns a command line into a graph of nodes, a server and its listeners, and takes them down
// in the reverse order. There are two doors to the same options. Our own is the cobra command "serve"; the other is
// qemu-nbd's, entered when the program is called by that name. One table (optiontable.go) holds the options of both;
// what the doors say differs in wording, and in the four defaults listed at defaultsOf.
//
// Goroutines: session.acceptLoop, one per listener, ends when the server stops; session.runChild waits for the command of
// --run and ends with it; section.watchLoop and section.beginOnce of "ctl drain", and monitor.askOnce, end with their connection, waitOnce with the
// command that it waits for; session.signalLoop and daemon.signalLoop wait for signals and end with the process; the
// timer of stopGuard runs once at most, and ends it.
package main
