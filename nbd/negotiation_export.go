package nbd

import (
	"fmt"
	"math/bits"
)

// exportInfo is what the handshake may tell of an export.
type exportInfo struct {
	Name, Description string
	Size              uint64
	Flags             TransmissionFlags // without SEND_DF and BLOCK_STATUS_PAYLOAD, which depend on the client
	MinBlock          uint32            // 0 means the default, as for the next two
	PreferredBlock    uint32
	MaxPayload        uint32
	Contexts          []string // full names a client may select, each once, in the order they are listed
	TLSOnly           bool     // not for a client in clear
	Generation        uint64   // changes whenever something told here does
	Export            *Export  // whose it is
}

// catalog is all the handshake knows of exports. Both methods already leave out what the peer is not
// authorised for: to such a peer the export does not exist.
type catalog interface {
	list(p *Peer) []exportInfo                    // what p may see, in the order of addition
	find(name string, p *Peer) (exportInfo, bool) // "" is the default export
}

// metaContext is one metadata context a client has selected.
type metaContext struct {
	id   uint32
	name string
}

// negotiated is the end of a handshake: what client and server agreed on.
type negotiated struct {
	export     exportInfo
	structured bool              // replies to READ are structured
	extended   bool              // 32-byte headers; implies everything structured means
	contexts   []metaContext     // those of SET_META_CONTEXT for this very export
	blockSizes bool              // the client asked for INFO_BLOCK_SIZE and so knows the limits
	flags      TransmissionFlags // as the client was told
	oldStyle   bool              // chosen by EXPORT_NAME
	welcome    []byte            // what tells the client that it has the export: the last of the handshake's bytes
}

// Block sizes of an export that sets none. NBD proto.md, "Block size constraints".
const (
	minBlockDefault       = 1
	preferredBlockDefault = 4096
	maxPayloadDefault     = 32 << 20

	minBlockMax       = 64 << 10 // a larger minimum is forbidden
	preferredBlockMin = 512
)

// blockSizes returns the three sizes to advertise, with the defaults filled in.
func (e *exportInfo) blockSizes() (minimum, preferred, maxPayload uint32) {
	orDefault := func(v, d uint32) uint32 {
		if v == 0 {
			return d
		}
		return v
	}
	minimum = orDefault(e.MinBlock, minBlockDefault)
	preferred = orDefault(e.PreferredBlock, max(preferredBlockDefault, minimum))
	return minimum, preferred, orDefault(e.MaxPayload, max(maxPayloadDefault, preferred))
}

// checkBlockSizes reports what QEMU's client and the specification would not accept, so that an export
// is refused when it is added and not when a client comes. NBD proto.md, "Block size constraints".
func (e *exportInfo) checkBlockSizes() error {
	minimum, preferred, maxPayload := e.blockSizes()
	powerOf2 := func(v uint32) bool { return bits.OnesCount32(v) == 1 }
	switch {
	case !powerOf2(minimum) || minimum > minBlockMax:
		return fmt.Errorf("minimum block size %d: it must be a power of 2 from 1 to %d", minimum, minBlockMax)
	case !powerOf2(preferred) || preferred < max(minimum, preferredBlockMin):
		return fmt.Errorf("preferred block size %d: it must be a power of 2 and at least %d", preferred, max(minimum, preferredBlockMin))
	case maxPayload < preferred:
		return fmt.Errorf("maximum payload %d: it must be at least the preferred block size %d", maxPayload, preferred)
	case e.Size%uint64(minimum) != 0:
		return fmt.Errorf("size %d: it must be a multiple of the minimum block size %d", e.Size, minimum)
	}
	return nil
}

// flagsFor returns the transmission flags to tell a client, given what it has negotiated. A flag promises,
// so whatever the export claims, combinations the specification forbids are taken out here.
// NBD proto.md, "Transmission flags".
func (e *exportInfo) flagsFor(structured, extended, contexts bool) TransmissionFlags {
	f := e.Flags&^(FlagSendDF|FlagBlockStatusPayload) | FlagHasFlags
	if f&FlagReadOnly != 0 {
		f &^= FlagSendTrim | FlagSendWriteZeroes
	}
	if f&FlagSendWriteZeroes == 0 {
		f &^= FlagSendFastZero
	}
	if structured || extended {
		f |= FlagSendDF
	}
	if extended && contexts {
		f |= FlagBlockStatusPayload
	}
	return f
}
