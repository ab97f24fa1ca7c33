package qmp

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// parser makes a tree of the tokens of one value. Its errors are QEMU's, found in the same order.
type parser struct {
	// Immutable.
	text   []byte
	tokens []token
	ours   bool // written by encoding/json, which takes any code point for a character

	// Owned by the goroutine that reads.
	at int
}

// endOfInput is the kind of the token behind the last one.
const endOfInput tokenKind = 255

// parse is called with the tokens of one value; nestingMax bounds its recursion.
func parse(text []byte, tokens []token, ours bool) (node, error) {
	p := &parser{text: text, tokens: tokens, ours: ours}
	return p.value()
}

func parseError(format string, args ...any) error {
	return Errorf("JSON parse error, "+format, args...)
}

func (p *parser) pop() (kind tokenKind, text []byte) {
	if p.at == len(p.tokens) {
		return endOfInput, nil
	}
	t := p.tokens[p.at]
	p.at++
	return t.kind, p.text[t.start:t.end]
}

// mark is the structural character that comes next, 0 if something else does.
func (p *parser) mark() byte {
	if p.at < len(p.tokens) && p.tokens[p.at].kind == tokenMark {
		return p.text[p.tokens[p.at].start]
	}
	return 0
}

// took is true, and the mark behind us, if that one comes next.
func (p *parser) took(mark byte) bool {
	if p.mark() != mark {
		return false
	}
	p.at++
	return true
}

func (p *parser) value() (node, error) {
	switch kind, text := p.pop(); kind {
	case endOfInput:
		return node{}, parseError("premature EOI")
	case tokenString:
		s, err := p.unquote(text)
		return node{kind: String, text: s}, err
	case tokenInteger:
		return node{kind: Integer, text: string(text)}, nil
	case tokenFloat:
		return node{kind: Float, text: string(text)}, nil
	case tokenKeyword:
		return keyword(string(text))
	default:
		switch text[0] {
		case '{':
			return p.object()
		case '[':
			return p.array()
		}
		return node{}, parseError("expecting value")
	}
}

func keyword(text string) (node, error) {
	switch text {
	case "true", "false":
		return node{kind: Boolean, text: text}, nil
	case "null":
		return node{kind: Null}, nil
	}
	return node{}, parseError("invalid keyword '%s'", text)
}

func (p *parser) array() (node, error) {
	array := node{kind: Array}
	if p.took(']') {
		return array, nil
	}
	for {
		element, err := p.value()
		if err != nil {
			return node{}, err
		}
		array.elements = append(array.elements, element)
		if p.took(']') {
			return array, nil
		}
		if !p.took(',') {
			return node{}, p.unless("expected separator in list")
		}
	}
}

func (p *parser) object() (node, error) {
	object := node{kind: Object}
	seen := map[string]bool{}
	if p.took('}') {
		return object, nil
	}
	for {
		m, err := p.member()
		if err != nil {
			return node{}, err
		}
		if seen[m.name] {
			return node{}, parseError("duplicate key")
		}
		seen[m.name] = true
		object.members = append(object.members, m)
		if p.took('}') {
			return object, nil
		}
		if !p.took(',') {
			return node{}, p.unless("expected separator in dict")
		}
	}
}

func (p *parser) member() (member, error) {
	key, err := p.value()
	switch {
	case err != nil:
		return member{}, err
	case key.kind != String:
		return member{}, parseError("key is not a string in object")
	case !p.took(':'):
		return member{}, p.unless("missing : in object pair")
	}
	value, err := p.value()
	return member{name: key.text, value: value}, err
}

// unless is the error, unless nothing follows at all.
func (p *parser) unless(problem string) error {
	if p.at == len(p.tokens) {
		problem = "premature EOI"
	}
	return parseError("%s", problem)
}

var escapes = [256]byte{
	'"': '"', '\'': '\'', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// unquote is the meaning of a string token. Bytes must be UTF-8, but for 0xC0 0x80, which is how NUL may be
// written; code points that are no characters are refused, as QEMU does.
func (p *parser) unquote(text []byte) (string, error) {
	var s strings.Builder
	for i := 1; i < len(text)-1; {
		switch c := text[i]; {
		case c == '\\' && text[i+1] == 'u':
			r, n := unicodeEscape(text[i:])
			if n == 0 {
				return "", parseError("%s is not a valid Unicode character", text[i:min(i+6, len(text))])
			}
			s.WriteRune(r)
			i += n
		case c == '\\':
			meaning := escapes[text[i+1]]
			if meaning == 0 {
				return "", parseError("invalid escape sequence in string")
			}
			s.WriteByte(meaning)
			i += 2
		default:
			r, n := utf8.DecodeRune(text[i:])
			if c == 0xc0 && text[i+1] == 0x80 {
				r, n = 0, 2
			} else if !p.ours && (r == utf8.RuneError && n == 1 || !isCharacter(r)) {
				return "", parseError("invalid UTF-8 sequence in string")
			}
			s.WriteRune(r)
			i += n
		}
	}
	return s.String(), nil
}

// unicodeEscape reads the four digits behind \u, or two such escapes that form a surrogate pair; the length is 0 if they name no character.
func unicodeEscape(text []byte) (rune, int) {
	high, ok := hex4(text)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(high) {
		return high, 6 * asInt(isCharacter(high))
	}
	low, ok := hex4(text[6:])
	if !ok {
		return 0, 0
	}
	r := utf16.DecodeRune(high, low)
	return r, 12 * asInt(r != utf8.RuneError && isCharacter(r))
}

func hex4(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(n), err == nil
}

func isCharacter(r rune) bool {
	return utf8.ValidRune(r) && r&0xfffe != 0xfffe && (r < 0xfdd0 || r > 0xfdef)
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
