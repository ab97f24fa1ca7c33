package qmp

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// nodeOf is what encoding/json makes of a value, as a tree; of nil an empty object.
func nodeOf(value any) (node, error) {
	if value == nil {
		return node{kind: Object}, nil
	}
	if n, ok := plainNode(value); ok {
		return n, nil
	}
	text, err := json.Marshal(value)
	if err != nil {
		return node{}, err
	}
	var result node
	s := &stream{ours: true, emit: func(n node, failed error) { result, err = n, failed }}
	s.feed(text)
	s.flush()
	return result, err
}

// plainNode is nodeOf for what most events are made of, without text in between: an event is often told while a client waits. It is false for
// everything else.
func plainNode(value any) (node, bool) {
	switch v := value.(type) {
	case string:
		return stringOf(validText(v)), true
	case bool:
		return node{kind: Boolean, text: strconv.FormatBool(v)}, true
	case int:
		return integerOf(int64(v)), true
	case int64:
		return integerOf(v), true
	case map[string]any:
		n := objectOf(make([]member, 0, len(v))...)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			inner, ok := plainNode(v[name])
			if !ok {
				return node{}, false
			}
			n.members = append(n.members, member{validText(name), inner})
		}
		return n, true
	}
	return node{}, false
}

// validText has U+FFFD for each byte that is no UTF-8, as encoding/json has.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

func objectOf(members ...member) node { return node{kind: Object, members: members} }

func stringOf(s string) node { return node{kind: String, text: s} }

// style is how JSON is laid out. QEMU's has a space behind each comma and colon, or, pretty, a line for each member and
// element.
type style struct {
	space  string // behind a colon, and behind a comma that does not end a line
	pretty bool
}

var (
	plainStyle   = style{space: " "}
	prettyStyle  = style{space: " ", pretty: true}
	compactStyle = style{}
)

// appendMessage adds a message as it goes over the wire, with the end of its line.
func (s style) appendMessage(to []byte, n node) []byte {
	return append(s.appendNode(to, n, 0), '\r', '\n')
}

func appendCompact(to []byte, n node) []byte { return compactStyle.appendNode(to, n, 0) }

func (s style) appendNode(to []byte, n node, depth int) []byte {
	switch n.kind {
	case Null:
		return append(to, "null"...)
	case String:
		return appendString(to, n.text)
	case Object:
		return s.appendObject(to, n, depth)
	case Array:
		to = append(to, '[')
		for i, element := range n.elements {
			to = s.separate(to, i, depth+1)
			to = s.appendNode(to, element, depth+1)
		}
		return append(s.end(to, depth), ']')
	}
	return append(to, n.text...)
}

func (s style) appendObject(to []byte, n node, depth int) []byte {
	to = append(to, '{')
	for i, m := range n.members {
		to = s.separate(to, i, depth+1)
		to = append(appendString(to, m.name), ':')
		to = append(to, s.space...)
		to = s.appendNode(to, m.value, depth+1)
	}
	return append(s.end(to, depth), '}')
}

// separate is what stands before the i-th member or element.
func (s style) separate(to []byte, i, depth int) []byte {
	if i > 0 {
		to = append(to, ',')
	}
	switch {
	case s.pretty:
		return indent(to, depth)
	case i > 0:
		return append(to, s.space...)
	}
	return to
}

// end is what stands before a bracket that closes, one around nothing too.
func (s style) end(to []byte, depth int) []byte {
	if s.pretty {
		return indent(to, depth)
	}
	return to
}

func indent(to []byte, depth int) []byte {
	to = append(to, '\r', '\n')
	for range depth {
		to = append(to, "    "...)
	}
	return to
}

// appendString writes pure ASCII, as QEMU does: whatever comes in between cannot break it.
func appendString(to []byte, s string) []byte {
	to = append(to, '"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			to = append(to, '\\', byte(r))
		case '\b':
			to = append(to, `\b`...)
		case '\f':
			to = append(to, `\f`...)
		case '\n':
			to = append(to, `\n`...)
		case '\r':
			to = append(to, `\r`...)
		case '\t':
			to = append(to, `\t`...)
		default:
			to = appendRune(to, r)
		}
	}
	return append(to, '"')
}

func appendRune(to []byte, r rune) []byte {
	switch {
	case r >= 0x20 && r < 0x7f:
		return utf8.AppendRune(to, r)
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return fmt.Appendf(to, `\u%04X\u%04X`, high, low)
	}
	return fmt.Appendf(to, `\u%04X`, r)
}
