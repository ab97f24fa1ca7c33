// Package control is the control plane of a running server: what can be asked of it and done to it while clients are served, as one table of
// commands. The words are QEMU's (QMP, qemu-storage-daemon); those that QEMU does not have begin with x-.
//
// # Concepts
//
// A [Plane] owns the registries: objects (event loops, throttle groups, credentials), nodes that somebody asked for, exports,
// leases on drained sections. It acts on a blockcore.Graph and an nbd.Server. The monitors of package qmp call it; so does the command
// line of the daemon, through the same table.
//
// A command is a method with a struct of arguments. It runs on an ordinary goroutine of its monitor, and several may run at a
// time: the graph serialises what changes it, the registries have a lock that nobody holds while he waits. A drain waits for storage and for nothing a client
// does, and it has a deadline; so a monitor answers whatever clients do.
//
// # Lock order
//
//	blockcore.Graph.control  changes of the graph
//	Plane.mu                 the registries
//	blockcore.Graph.mu       and what is below it
//
// Who changes the graph may look into the registries in the middle of it; nobody asks for a change while he holds Plane.mu.
//
// # Goroutines
//
//   - removeLoop, one for each export on its way out: ends when its last client is gone.
//   - time.AfterFunc of a lease: ends it when nobody renews it.
package control
