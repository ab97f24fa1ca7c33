package nbd

import "time"

// Limits bound what clients can make the server hold. The zero value of a field takes the default.
type Limits struct {
	// Handshake is the time a client has to reach the transmission phase, TLS included.
	Handshake time.Duration
	// Connections bounds the clients of the server, those that haggle included; excess clients wait,
	// all but one of each listener in its backlog. 0 = ConnectionsDefault, negative = no limit.
	Connections int
	// Requests bounds the requests in flight of one connection.
	Requests int
	// ConnectionBytes, ExportBytes and ProcessBytes bound the payload held for requests, from the
	// moment a request's header is known until its reply has left. At the bound the server stops reading
	// from the socket. A request that is alone on its connection may exceed the shared bounds, a long one up to twice
	// the bound: nobody starves. Beyond the bound clients that stall are cut off.
	ConnectionBytes, ExportBytes, ProcessBytes int64
	// Linger is how long a connection that has ended waits for its client to take the last replies.
	Linger time.Duration
	// Farewell is how long a connection that we end, and whose replies have left, waits for its client to close as well.
	Farewell time.Duration
	// Stall is how long a connection may hold more than 1 MiB, or outboxHeadersFree of small replies, for a client that neither reads nor goes on with its
	// payload, while others wait for memory.
	Stall time.Duration
	// Silence is how long the host of a TCP client may leave replies unacknowledged before the client counts as dead. One
	// that is alive and does not read acknowledges them.
	Silence time.Duration
	// Retire is how long a client of an export that retires may go on to be told so.
	Retire time.Duration
}

// Defaults of Limits, and bounds that are not to be set.
const (
	// ConnectionsDefault is QEMU's since CVE-2024-7409.
	ConnectionsDefault = 1024
	// RequestsDefault is eight times what QEMU's client sends and what the kernel sends by default.
	RequestsDefault = 128
	// ConnectionBytesDefault lets one request of libnbd's largest size, or several of QEMU's,
	// be in flight, and keeps what a client that never reads can pin below 64 MiB.
	ConnectionBytesDefault = 32 << 20
	// ExportBytesDefault and ProcessBytesDefault are a handful of connections at their limit.
	ExportBytesDefault  = 256 << 20
	ProcessBytesDefault = 512 << 20

	// LingerDefault is as long as a client has for the handshake.
	LingerDefault = 10 * time.Second
	// FarewellDefault is many round trips of any network: who has not closed by then is in no hurry to.
	FarewellDefault = time.Second
	// StallDefault is longer than any client takes that is alive, and short enough for a guest's patience.
	StallDefault = 10 * time.Second
	// SilenceDefault is as long as keepalive takes to find a client that rests.
	SilenceDefault = keepIdle + keepCount*keepInterval
	// RetireDefault is the handshake's again: a client that has not left by then does not listen.
	RetireDefault = 10 * time.Second

	// payloadMax is the longest payload of a WRITE that is taken and the longest READ that is answered:
	// what libnbd sends at most. The specification only asks for 32 MiB.
	payloadMax = 64 << 20
	// payloadAdvertised is what clients are told: the largest size every client can rely on.
	payloadAdvertised = 32 << 20
	// payloadSkipMax is the longest payload of a refused WRITE that is read and thrown away; a longer one ends the
	// connection.
	payloadSkipMax = 256 << 20
	// outboxHeadersMax is how many bytes of replies, data of READs apart, may wait for a client that does not read
	// before nothing more is taken from it. They are in the budget of the process; where that is used up a connection has
	// outboxHeadersFree.
	outboxHeadersMax = 256 << 10
	// outboxHeadersFree is what a connection may hold unasked: replies to a burst, and 16 MiB for a thousand connections.
	outboxHeadersFree = 16 << 10
	// statusExtentsMax is how many extents one BLOCK_STATUS reply carries per context: as QEMU, 1 MiB.
	statusExtentsMax = 1 << 17
	// statusBatch is how many extents a driver is asked for at once.
	statusBatch = 256
	// statusPayloadMax is the longest list of contexts that a BLOCK_STATUS may bring, in bytes: above a
	// thousand of them.
	statusPayloadMax = 4 << 10
)

func (l Limits) withDefaults() Limits {
	if l.Handshake == 0 {
		l.Handshake = handshakeDeadlineDefault
	}
	if l.Connections == 0 {
		l.Connections = ConnectionsDefault
	}
	if l.Requests == 0 {
		l.Requests = RequestsDefault
	}
	if l.Linger == 0 {
		l.Linger = LingerDefault
	}
	if l.Farewell == 0 {
		l.Farewell = FarewellDefault
	}
	if l.Stall == 0 {
		l.Stall = StallDefault
	}
	if l.Silence == 0 {
		l.Silence = SilenceDefault
	}
	if l.Retire == 0 {
		l.Retire = RetireDefault
	}
	l.ConnectionBytes = orDefault(l.ConnectionBytes, ConnectionBytesDefault)
	l.ExportBytes = orDefault(l.ExportBytes, ExportBytesDefault)
	l.ProcessBytes = orDefault(l.ProcessBytes, ProcessBytesDefault)
	return l
}

func orDefault(v, otherwise int64) int64 {
	if v == 0 {
		return otherwise
	}
	return v
}
