// Package nbd is the NBD protocol and a server for it: the handshake, the transmission phase, exports and connections. It knows
// block storage only as a blockcore.Root, and no backend. docs/nbd.md holds a row for each requirement of the
// protocol with the test that proves it.
//
// # The life of a connection
//
//	Serve          a client is accepted and takes a seat; who finds none waits, and who comes later in the backlog
//	handshakeLoop  greeting, options, TLS; the state machine is negotiation, without I/O and without a clock
//	transmit       the socket leaves Go's poller and moves to the AioContext of the export; behind TLS
//	               it is one end of a socket pair whose other end is pumped
//	Conn           receive -> parse -> request -> Root -> ... -> reply -> outbox -> send, all on the loop
//	maybeClose     the input has ended, nothing is in flight, the outbox is empty or useless
//	leave          the last bytes are out; the seat is free
//
// The input of a connection ends once, for one Cause: DISC, end of file, a socket that failed, a broken protocol, Stop. From
// then on nothing new is begun, and what is in flight is finished, with a reply if the client still takes it. A request
// enters the block layer only when its payload is complete, so a write that was cut off has never existed. After the
// last reply the client has Limits.Linger to take it, and where we end the connection Limits.Farewell to close it as well.
// Clients that go without a sign are looked for (presence.go).
//
// Who is cut off by force sees that at once (evict.go); the connection stays until the storage is done with its requests.
//
// A request is a Task. It is checked first (request.check: command, flags, read-only, size, range, alignment, in this order), admitted by
// the Root, which holds it back while the export is drained, and is in flight until its reply is in the outbox. Replies
// are sent together at the end of each turn of the loop, in the order in which requests finish.
//
// # Limits
//
// What a client can make the server hold is bounded, in Limits and beside them; at a bound nothing is dropped, the server just does not
// read on from that client.
//
//   - Before the transmission phase: a seat, a goroutine, a few KiB, and ten seconds.
//   - Requests in flight, of a connection.
//   - Bytes of payload, from the header of a request until its reply has left: of a connection, of an export, of the
//     process. One request is let in whatever the others hold when its connection has nothing else, so that none starves.
//   - Replies without payload that are not taken, of a connection (outboxHeadersMax) and, but for a little (outboxHeadersFree), of the
//     process.
//   - One payload: payloadMax is served, up to payloadSkipMax consumed and refused; beyond that the connection ends.
//
// A connection that rests has no buffer and no share of a budget; buffers for receiving (slab) and free requests belong to the lane, which all
// connections on one AioContext share.
//
// # Goroutines and their ends
//
//   - acceptLoop, the caller of Serve: ends when Stop closes its listener.
//   - handshakeLoop, one for each client in the handshake: ends with it, at its deadline at the latest, and at once when Stop cancels it.
//   - the loop of the AioContext, which belongs to blockcore: everything under "Owned by the context" happens there.
//   - decryptLoop and encryptLoop, two for each TLS connection in the transmission phase: each ends when its source ends or the
//     client refuses, and ends the other one by closing what lies between. When the engine has closed its side, deadlines bound
//     what is left.
//   - lastDrain, one for each export that goes: ends when nothing of it is in flight, or at the deadline of a drain.
//   - pauseLoop, one for each pause: ends with the limit, the last client, the stop of the server, or another export that takes the clients.
//   - saveLoop, one for Offers with a file, after a resize: ends when the file is up to date, or cannot be written; Offers.Close waits for it.
//   - leaveAfter, one for each TLS connection that has been closed: ends when the two before it have.
//
// Stop returns when all of them have ended, but for the loops, which are not its own.
//
// # Who suffers from whose fault
//
//   - A client that stalls, floods, lies or vanishes costs itself. Others share with it the loop, on which it gets one burst of requests
//     a turn, and the budgets, which never keep out a connection that has nothing in flight.
//   - A request that the client got wrong is an error reply; so is one that failed in the backend, which is an event (RequestFailed) as well. The connection
//     goes on. Only when it is unknown where the next request begins is it closed.
//   - A backend that hangs holds its requests and the ends of their connections, not other connections, and not the handshake. Stop does not return
//     while a write may still land.
//   - A planned stop is no error to anybody: requests are answered, sockets closed. QEMU and the kernel then come back by themselves, while
//     ESHUTDOWN would reach their guests as an I/O error.
package nbd
