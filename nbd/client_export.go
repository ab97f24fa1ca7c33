package nbd

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// RemoteExport is what a server tells of one of its exports.
type RemoteExport struct {
	Name, Description string

	// What follows is known if Known is set: not every server answers INFO, nor for every export.
	Known bool
	Size  uint64
	Flags TransmissionFlags

	// Zero if the server did not say.
	MinBlock, PreferredBlock, MaxPayload uint32

	Contexts []RemoteContext
}

// RemoteContext is a metadata context a server offers or has selected.
type RemoteContext struct {
	ID   uint32
	Name string
}

// List asks for the names of the exports and their descriptions.
func (c *Client) List() ([]RemoteExport, error) {
	var exports []RemoteExport
	err := c.Ask(OptList, nil, func(t Reply, data []byte) error {
		e, err := parseServer(t, data)
		exports = append(exports, e)
		return err
	})
	return exports, err
}

// Info asks about an export.
func (c *Client) Info(name string) (RemoteExport, error) { return c.infoOrGo(OptInfo, name) }

// Go asks about an export and, if there is no error, takes it: the transmission phase begins.
func (c *Client) Go(name string) (RemoteExport, error) { return c.infoOrGo(OptGo, name) }

// ExportName takes an export by the old option. A server that refuses can only hang up.
func (c *Client) ExportName(name string) (RemoteExport, error) {
	e := RemoteExport{Name: name, Known: true}
	if err := c.send(OptExportName, []byte(name)); err != nil {
		return e, err
	}
	answer := make([]byte, 10, 10+exportNamePadding)
	if c.flags&HandshakeNoZeroes == 0 {
		answer = answer[:cap(answer)]
	}
	if _, err := io.ReadFull(c.conn, answer); err != nil {
		return e, fmt.Errorf("server refused %v or left: %w", OptExportName, err)
	}
	e.Size = binary.BigEndian.Uint64(answer)
	e.Flags = TransmissionFlags(binary.BigEndian.Uint16(answer[8:]))
	return e, nil
}

// ListContexts asks which metadata contexts an export has; no queries ask for all.
func (c *Client) ListContexts(export string, queries ...string) ([]RemoteContext, error) {
	return c.contexts(OptListMetaContext, export, queries)
}

// SetContexts selects metadata contexts for an export in place of those selected before.
func (c *Client) SetContexts(export string, queries ...string) ([]RemoteContext, error) {
	return c.contexts(OptSetMetaContext, export, queries)
}

func (c *Client) contexts(o Option, export string, queries []string) ([]RemoteContext, error) {
	var contexts []RemoteContext
	err := c.Ask(o, metaData(export, queries), func(t Reply, data []byte) error {
		if t != RepMetaContext || len(data) < 4 {
			return fmt.Errorf("%w: %v of %d bytes in reply to %v", ErrServer, t, len(data), o)
		}
		name := string(data[4:])
		if err := checkString(name); err != nil {
			return fmt.Errorf("%w: context %s: %w", ErrServer, shown(name), err)
		}
		contexts = append(contexts, RemoteContext{ID: binary.BigEndian.Uint32(data), Name: name})
		return nil
	})
	return contexts, err
}

func (c *Client) infoOrGo(o Option, name string) (RemoteExport, error) {
	e := RemoteExport{Name: name}
	data := infoData(name, InfoName, InfoDescription, InfoBlockSize)
	if err := c.Ask(o, data, func(t Reply, data []byte) error {
		if t != RepInfo || len(data) < 2 {
			return fmt.Errorf("%w: %v of %d bytes in reply to %v", ErrServer, t, len(data), o)
		}
		return e.learn(Info(binary.BigEndian.Uint16(data)), data[2:])
	}); err != nil {
		return e, err
	}
	if !e.Known {
		return e, fmt.Errorf("%w: %v without %v", ErrServer, o, InfoExport)
	}
	return e, nil
}

// learn takes one piece of information in. Unknown ones are no error.
func (e *RemoteExport) learn(i Info, data []byte) error {
	wrong := func() error { return fmt.Errorf("%w: %v of %d bytes", ErrServer, i, len(data)) }
	switch i {
	case InfoExport:
		if len(data) != 10 || e.Known {
			return wrong()
		}
		e.Known = true
		e.Size = binary.BigEndian.Uint64(data)
		e.Flags = TransmissionFlags(binary.BigEndian.Uint16(data[8:]))
	case InfoBlockSize:
		if len(data) != 12 {
			return wrong()
		}
		return e.learnBlockSizes(binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:]))
	case InfoName, InfoDescription:
		text := string(data)
		if err := checkString(text); err != nil {
			return fmt.Errorf("%w: %v: %w", ErrServer, i, err)
		}
		if i == InfoName {
			e.Name = text
		} else {
			e.Description = text
		}
	}
	return nil
}

func (e *RemoteExport) learnBlockSizes(minimum, preferred, maxPayload uint32) error {
	if bits.OnesCount32(minimum) != 1 || bits.OnesCount32(preferred) != 1 || preferred < minimum || maxPayload < minimum {
		return fmt.Errorf("%w: block sizes %d, %d, %d", ErrServer, minimum, preferred, maxPayload)
	}
	e.MinBlock, e.PreferredBlock, e.MaxPayload = minimum, preferred, maxPayload
	return nil
}

func parseServer(t Reply, data []byte) (e RemoteExport, err error) {
	if t != RepServer || len(data) < 4 {
		return e, fmt.Errorf("%w: %v of %d bytes in reply to %v", ErrServer, t, len(data), OptList)
	}
	nameLen := binary.BigEndian.Uint32(data)
	if uint64(nameLen) > uint64(len(data)-4) {
		return e, fmt.Errorf("%w: name of %d bytes in a reply of %d", ErrServer, nameLen, len(data))
	}
	e.Name, e.Description = string(data[4:4+nameLen]), string(data[4+nameLen:])
	for _, s := range []string{e.Name, e.Description} {
		if err := checkString(s); err != nil {
			return e, fmt.Errorf("%w: export %s: %w", ErrServer, shown(s), err)
		}
	}
	return e, nil
}

// infoData is the data of INFO and GO.
func infoData(name string, types ...Info) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(name))), name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(types)))
	for _, t := range types {
		b = binary.BigEndian.AppendUint16(b, uint16(t))
	}
	return b
}

// metaData is the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func metaData(export string, queries []string) []byte {
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(export))), export...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(q))), q...)
	}
	return b
}
