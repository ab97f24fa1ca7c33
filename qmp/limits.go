package qmp

import "time"

// Bounds on what one connection, and all of them, can make the server hold. At its worst, with every connection at
// every bound, that is some 300 MiB; a monitor that is used as meant holds a few KiB.
const (
	// commandBytesMax bounds the text of one command without its white space. The longest that people send is a
	// transaction over some hundred nodes, of some 100 KiB.
	commandBytesMax = 1 << 20

	// commandTokensMax bounds the pieces of one command, which cost memory beyond their text: "[1,1,1" is the cheapest
	// way to make a tree that is large.
	commandTokensMax = 1 << 15

	// nestingMax bounds objects within objects. A chain of images written in one command nests once for each; QEMU's own
	// bound is 1024.
	nestingMax = 256

	// queueLenMax is how many commands of one connection wait behind the one that runs; with so many the server reads
	// on only when one of them begins. It is QEMU's number.
	queueLenMax = 8

	// queueWeightMax bounds the memory of commands that wait. The largest command alone weighs less.
	queueWeightMax = 4 << 20

	// outputBytesMax is how much a client may leave unread before its commands are no longer run: one response more is
	// held than fits. Events are not counted here.
	outputBytesMax = 1 << 20

	// eventsWaitingMax and eventBytesMax are how many events are kept for a client that does not read; beyond them the
	// oldest are dropped and counted. A section that ends thousands of jobs at once fits.
	eventsWaitingMax = 4096
	eventBytesMax    = 1 << 20

	// connectionsMax is how many monitors may be open at once. A management layer holds one or two, people some more.
	connectionsMax = 32
)

const (
	// goneAfter is how long a client that has closed its sending side may wait for answers to what it sent before, as
	// `echo ... | socat - UNIX-CONNECT:...` does. Beyond it the client is taken for gone and the context of its
	// connection ends. On a socket the two cases look alike.
	goneAfter = 2 * time.Second

	// flushMax is how long the last responses of a connection that the server ends may take to leave.
	flushMax = time.Second

	// hangUpMax is how long a client that has said quit may take to close its connection before we do. It holds up the end of the program, and so
	// is short.
	hangUpMax = 250 * time.Millisecond

	// silentMax is how long a connection keeps its place without having negotiated, when the places are all taken. People type
	// slowly, and may while there are places left.
	silentMax = 10 * time.Second

	// refusalMax is how long the word to a client that finds no place may take to leave.
	refusalMax = 100 * time.Millisecond

	// acceptPause is how long to wait when the process has no file descriptor left for a new client.
	acceptPause = 100 * time.Millisecond
)

// Bounds of the client.
const (
	// replyBytesMax bounds one message from the server, which the client trusts not to attack it and not to be right.
	replyBytesMax = 64 << 20

	// clientEventsMax is how many events wait for whoever reads Events; beyond it the oldest are dropped and counted.
	clientEventsMax = 4096
)
