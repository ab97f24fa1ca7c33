package nbd

import "time"

// Limits of the handshake. A client that has not shown which export it wants may cost us a goroutine and
// a few KiB, for ten seconds.
const (
	// handshakeDeadlineDefault covers everything from the greeting to the answer to GO, TLS included.
	// QEMU's server has the same.
	handshakeDeadlineDefault = 10 * time.Second

	// stringMax is the specification's bound on names, descriptions, queries and messages.
	// NBD proto.md, "Values".
	stringMax = 4096

	// messageMax bounds our own error texts: QEMU's client refuses replies over 1000 bytes, and 256 is
	// what the specification recommends.
	messageMax = 256

	// nameShownMax bounds a client's string when it is quoted in a text.
	nameShownMax = 80

	// optionSkipMax is how much data of an option is read and thrown away to stay polite; beyond it
	// the client is flooding us.
	optionSkipMax = 32 << 20

	// infoDataMax is how much of INFO and GO is looked at: the longest name and 2000 information types,
	// of which four exist.
	infoDataMax = 8 << 10

	// metaDataMax is the same for the metadata context options: the longest export name and the longest
	// query, and as much again.
	metaDataMax = 16 << 10

	// queriesMax bounds the queries of one metadata context option.
	queriesMax = 256

	// optionsMax ends haggling that leads nowhere. It is far above what any client does; the deadline
	// is the real bound.
	optionsMax = 4096

	// repliesBuffered is how many bytes of replies are gathered before they are sent: those to LIST on a server
	// with many exports get there.
	repliesBuffered = 4 << 10
)
