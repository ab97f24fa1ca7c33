package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Metadata contexts: what BLOCK_STATUS can tell of an export. Their names are namespace:leaf, and which
// there are is the export's business; nothing here knows one by name.

// selection is what SET_META_CONTEXT selected. It belongs to the export it was made for.
type selection struct {
	export   string // canonical name
	contexts []metaContext
}

// on returns the contexts that hold for e: those selected, if e is the export they were selected for and
// still has them. NBD proto.md, "Metadata querying".
func (s *selection) on(e *exportInfo) []metaContext {
	if s.export != e.Name {
		return nil
	}
	var held []metaContext
	for _, c := range s.contexts {
		if slices.Contains(e.Contexts, c.name) {
			held = append(held, c)
		}
	}
	return held
}

// metaContexts answers LIST_META_CONTEXT and SET_META_CONTEXT. NBD proto.md, "NBD_OPT_LIST_META_CONTEXT",
// "NBD_OPT_SET_META_CONTEXT".
//
// LIST is a question and is answered to anyone, with the id 0; SET needs a way of replying that has room
// for the answers.
func (n *negotiation) metaContexts(o optionRequest, _ *infoPin) outcome {
	set := o.option == OptSetMetaContext
	if set && !n.structured && !n.extended {
		return n.refuse(o.option, RepErrInvalid, "metadata contexts need structured replies or extended headers: negotiate these first")
	}
	name, queries, err := parseMeta(o)
	switch {
	case errors.Is(err, errTooBig):
		return n.refuse(o.option, RepErrTooBig, "%v: %v", o.option, err)
	case err != nil:
		return n.refuse(o.option, RepErrInvalid, "%v: %v", o.option, err)
	}
	e, t, err := n.lookup(o.option, name)
	if err != nil {
		return n.refuse(o.option, t, "%v", err)
	}
	if set {
		n.selected.export = e.Name
	}
	for i, context := range e.Contexts {
		id := uint32(i)
		switch {
		case set && slices.Contains(queries, context):
			n.selected.contexts = append(n.selected.contexts, metaContext{id: id, name: context})
		case !set && listed(queries, context):
			id = 0
		default:
			continue
		}
		n.reply(o.option, RepMetaContext, append(binary.BigEndian.AppendUint32(nil, id), context...))
	}
	return n.done(o.option)
}

// listed reports whether LIST with these queries shows a context. No query asks for all; a query that
// ends in a colon is a wildcard for what begins with it ("base:", "qemu:", "qemu:dirty-bitmap:"). What
// names nothing we have is not an error, so that clients may ask for more than one server knows.
func listed(queries []string, context string) bool {
	if len(queries) == 0 {
		return true
	}
	return slices.ContainsFunc(queries, func(q string) bool {
		return q == context || strings.HasSuffix(q, ":") && strings.HasPrefix(context, q)
	})
}

// errTooBig marks what is well formed, as far as we looked, but more than we take.
var errTooBig = errors.New("too much")

// parseMeta takes the data of a metadata context option apart:
//
//	u32 length of name | name | u32 n | n * { u32 length of query | query }
func parseMeta(o optionRequest) (export string, queries []string, err error) {
	const lengths = 4 + 4
	if o.length < lengths || len(o.data) < 4 {
		return "", nil, fmt.Errorf("%d bytes of data, at least %d are needed", o.length, lengths)
	}
	nameLen := binary.BigEndian.Uint32(o.data)
	if nameLen > o.length-lengths {
		return "", nil, fmt.Errorf("name length %d runs past the %d bytes of the option", nameLen, o.length)
	}
	if nameLen > stringMax {
		return "", nil, fmt.Errorf("name of %d bytes, the limit is %d", nameLen, stringMax)
	}
	export, rest := string(o.data[4:4+nameLen]), o.data[4+nameLen:]
	if err := checkString(export); err != nil {
		return "", nil, fmt.Errorf("name %s: %w", shown(export), err)
	}
	count := binary.BigEndian.Uint32(rest)
	switch {
	case uint64(count)*4 > uint64(o.length-lengths-nameLen):
		return "", nil, fmt.Errorf("%d queries do not fit into the %d bytes of the option", count, o.length)
	case count > queriesMax:
		return "", nil, fmt.Errorf("%w: %d queries, the limit is %d", errTooBig, count, queriesMax)
	case uint32(len(o.data)) < o.length:
		return "", nil, fmt.Errorf("%w: %d bytes of queries, the limit is %d", errTooBig, o.length, metaDataMax)
	}
	queries, err = parseQueries(rest[4:], count)
	return export, queries, err
}

// parseQueries reads count queries that must fill data exactly.
func parseQueries(data []byte, count uint32) ([]string, error) {
	queries := make([]string, 0, count)
	for range count {
		if len(data) < 4 {
			return nil, fmt.Errorf("query %d of %d is missing", len(queries)+1, count)
		}
		length := binary.BigEndian.Uint32(data)
		if uint64(length) > uint64(len(data)-4) {
			return nil, fmt.Errorf("query %d: length %d runs past the option", len(queries)+1, length)
		}
		q := string(data[4 : 4+length])
		if err := checkString(q); err != nil {
			return nil, fmt.Errorf("query %s: %w", shown(q), err)
		}
		queries, data = append(queries, q), data[4+length:]
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("%d bytes follow the last query", len(data))
	}
	return queries, nil
}
