// Package subject starts the program under test as a user would: built once, run as a process with a command line,
// reached over a socket, stopped by a signal. The interop and end-to-end tests and their clients stand on it.
//
// INTEROP_SERVER names another program that takes qemu-nbd's options. It exists to prove the tests themselves: what
// qemu-nbd passes is a fair question to ask of us.
//
// Goroutines: Server.run, one a server, ends with the process.
package subject
