package nbd

import "time"

// Event is something that happened to the server. Events are the one source of logs and tests' transcripts.
// They are delivered by the goroutine or loop where they happen: who receives them must not block.
type Event interface{ isEvent() }

// ConnectionAccepted: a client has connected and the handshake begins.
type ConnectionAccepted struct{ Peer *Peer }

// NegotiationFailed: a client left, or was sent away, before it reached an export.
type NegotiationFailed struct {
	Peer *Peer
	Err  error
}

// AccessDenied: a client asked for an export that it is not authorised for, and was told that there is none.
type AccessDenied struct {
	Peer   *Peer
	Export string
	Err    error
}

// ConnectionOpened: a client has entered the transmission phase.
type ConnectionOpened struct {
	Peer   *Peer
	Export string
	ID     uint64 // of the connection
}

// ConnectionClosed: the last that is heard of a connection that was opened.
type ConnectionClosed struct {
	Peer     *Peer
	Export   string
	ID       uint64
	Cause    Cause
	Err      error // of the socket, or what the client did wrong; may be nil
	Requests uint64
	Failed   uint64 // of these, answered with an error
	Read     uint64 // bytes sent in answer to READ
	Written  uint64 // bytes taken by WRITE
	Duration time.Duration
}

// ClientGone: a client, whether it reached an export or not, is gone; Left others remain, those in the handshake
// included.
type ClientGone struct{ Left int }

// RequestFailed: the backend, and not the client, is at fault.
type RequestFailed struct {
	Export  string
	ID      uint64 // of the connection
	Command Command
	Offset  uint64
	Length  uint64
	Err     error
}

// AcceptFailed: a listener has trouble; it goes on after a pause.
type AcceptFailed struct{ Err error }

// ExportRemoved: an export is gone, and its last client with it, unless they wait for another one.
type ExportRemoved struct{ Export string }

// ExportResized: what clients see has another size now, in bytes.
type ExportResized struct {
	Export string
	Size   int64
}

// ClientsHeld: an export is gone, and its clients wait for another one of that name.
type ClientsHeld struct {
	Export  string
	Clients int
	Most    time.Duration
}

// PauseRefused: an export that was to go with a pause goes by FarewellRestart.
type PauseRefused struct {
	Export string
	Err    error
}

// ClientsReleased: the wait of an export's clients is over.
type ClientsReleased struct {
	Export  string
	Clients int // that were there still
	Held    time.Duration
	Outcome Outcome
}

// Outcome is how a pause ended.
type Outcome uint8

// Outcomes.
const (
	OutcomeTakenOver Outcome = iota // they are clients of another export
	OutcomeLeft                     // they have all gone
	OutcomeLimit                    // nobody came in time; their connections are closed
	OutcomeStopped                  // the server stops
)

func (o Outcome) String() string {
	return [...]string{"taken over", "all left", "limit reached", "server stopped"}[o]
}

func (ClientsHeld) isEvent()        {}
func (PauseRefused) isEvent()       {}
func (ClientsReleased) isEvent()    {}
func (ExportRemoved) isEvent()      {}
func (ExportResized) isEvent()      {}
func (ConnectionAccepted) isEvent() {}
func (NegotiationFailed) isEvent()  {}
func (AccessDenied) isEvent()       {}
func (ConnectionOpened) isEvent()   {}
func (ConnectionClosed) isEvent()   {}
func (ClientGone) isEvent()         {}
func (RequestFailed) isEvent()      {}
func (AcceptFailed) isEvent()       {}

// Cause is why a connection ended.
type Cause uint8

// Causes.
const (
	CauseDisconnect   Cause = iota // NBD_CMD_DISC
	CauseEOF                       // the client closed without a word
	CauseReset                     // the socket failed
	CauseProtocol                  // the client broke the protocol beyond repair
	CauseStopped                   // the server or the export is going
	CauseLinger                    // the client did not take its last replies
	CauseStalled                   // the client held memory that others waited for, and did nothing
	CauseDisconnected              // an operator has thrown the client out
)

func (c Cause) String() string {
	switch c {
	case CauseDisconnect:
		return "disconnect"
	case CauseEOF:
		return "end of file"
	case CauseReset:
		return "connection lost"
	case CauseProtocol:
		return "protocol violated"
	case CauseStopped:
		return "server or export stopped"
	case CauseLinger:
		return "replies not taken"
	case CauseStalled:
		return "stalled while others waited"
	case CauseDisconnected:
		return "thrown out"
	}
	return "unknown"
}
