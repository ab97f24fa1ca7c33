// Package loadgen drives an NBD server as hard as it goes with as little of its own work
// as possible, so that what is measured is the server.
//
// A client that sends each request with a system call of its own measures itself: on a
// small machine it is the slower side. So here each connection has one OS thread that
// receives whatever is there in one call, parses all the replies in it, and sends all
// the requests they make room for in one call. Nothing is allocated per request, write
// payloads are one shared buffer, read payloads are received and not looked at (unless
// Spec.Verify asks for it), the clock is read once a turn.
//
// Concepts: a Spec says what to do, Open connects and negotiates, Run works for a time
// or a number of requests and may be called again on the same connections (a warm-up,
// the measurement, a count of system calls), Close says goodbye.
//
// Goroutines: worker.run, one a connection, locked to its thread, started by Run and
// finished when Run returns.
//
// Threads wait in raw system calls, which do not give their P back to the scheduler;
// Run raises GOMAXPROCS so that there is always one to spare. A receive times out now
// and then, so that neither the garbage collector nor a dead server holds us for ever.
package loadgen
