// Package qmp is QEMU's monitor protocol: a server for any set of commands, and a client. It knows nothing of blocks.
// QEMU's docs/interop/qmp-spec describes the protocol; what it leaves open, above all the words of errors and what happens
// after bad input, is as qemu-storage-daemon does it, and a test compares.
//
// # The life of a command
//
//	readLoop      bytes -> stream (lexer, brackets counted) -> parse -> node -> request
//	queue         ordinary commands wait for their turn; those out of band do not
//	commandLoop   Handler, with the arguments as a Value: Decode checks them against a struct
//	outbox        the answer, and events of others, in the order in which they happened
//	writeLoop     to the client
//
// # Who can hold up whom
//
// A connection runs its commands one after the other. A command that waits holds up those behind it, and what is read from
// that client once the queue is full, and nobody else: connections share only the table of commands and a mutex that is
// never held while something waits. A client that does not read is not served on when outputBytesMax are unread; events that
// it misses are dropped and counted (LostEvents). All bounds are in limits.go.
//
// A client that closes its sending side gets answers to what it has sent for a while (goneAfter). When a connection ends,
// its context does, the command that runs returns, and then the functions registered with OnClose are called: what
// belonged to the client is let go.
//
// A handler that panics ends the program: nothing that a client sends may lead there.
//
// The end of the server has two steps, Quiet and Close, between which monitors are connected and no command runs (ending.go).
//
// # Arguments
//
// With reads the arguments of a command into a struct, by the rules of Value.Decode. The same structs are read from JSON (Decode) and
// from keys and values (ParseOptions) on a command line. A union is a type with DecodeQMP: it takes the members that all branches share
// (Value.Take), and decodes what is left into the struct of the branch; an alternate asks for the Kind first.
//
// # Goroutines and their ends
//
//   - acceptLoop, the caller of Serve: ends when Quiet or Close closes its listener.
//   - serve, one for each connection, which becomes commandLoop: ends when the input has ended and
//     the commands before have been run, or when the connection is stopped, by Close or by an error of the transport.
//     Close waits for it.
//   - readLoop and writeLoop, two for each connection: end when the transport is closed, at the latest. serve
//     waits for them, unless the transport is no net.Conn: reading from a terminal cannot be interrupted.
//   - Client.readLoop, one for each client: ends when the connection does, and Client.Close waits for it.
package qmp
