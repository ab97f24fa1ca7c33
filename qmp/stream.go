package qmp

import "bytes"

// token is a run of stream.text.
type token struct {
	kind       tokenKind
	start, end int
}

// stream cuts bytes, split anywhere, into JSON values and tells about each: the value, or the error about it. After an
// error it goes on with what follows. What it holds is bounded by commandBytesMax and commandTokensMax.
//
// A value is complete when as many brackets and braces have been closed as opened; the two are counted apart, and
// one that is closed too often ends the value as well. That is how QEMU finds its way back after bad input, and
// clients count on the number of errors they get.
type stream struct {
	// Immutable.
	ours bool // from encoding/json, for output: without bounds
	emit func(node, error)

	// Owned by the goroutine that reads.
	lexer            lexer
	text             []byte // of all tokens of the value that is being read
	tokens           []token
	begun            int // where in text the token begins that is being read
	braces, brackets int
}

// keepBytes is the room that a stream keeps between values: ordinary commands allocate nothing.
const keepBytes = 16 << 10

func (s *stream) feed(data []byte) {
	for len(data) > 0 {
		n := s.plain(data)
		if n == 0 {
			for !s.feedByte(data[0]) {
			}
			n = 1
		}
		data = data[n:]
	}
}

// plain takes what the string that is open takes without a thought, up to the bound: long strings are most of what is
// long. It is how many bytes that are.
func (s *stream) plain(data []byte) int {
	if s.lexer.state != lexString {
		return 0
	}
	n := 0
	for n < len(data) && isPlain(data[n]) {
		n++
	}
	if !s.ours {
		n = min(n, commandBytesMax-len(s.text))
	}
	s.text = append(s.text, data[:n]...)
	return n
}

// feedByte is false if the byte has to be shown again.
func (s *stream) feedByte(c byte) bool {
	verdict, kind := s.lexer.next(c)
	switch verdict {
	case lexMore:
		s.text = append(s.text, c)
		if len(s.text) > commandBytesMax && !s.ours {
			s.lexer.state = lexRecovery
			s.fail(Errorf("JSON token size limit exceeded"))
		}
	case lexLast, lexWrong:
		s.text = append(s.text, c)
		s.take(kind)
	case lexLastBefore:
		s.take(kind)
	}
	return verdict != lexLastBefore && verdict != lexAgain
}

// take adds the token that is complete.
func (s *stream) take(kind tokenKind) {
	t := token{kind: kind, start: s.begun, end: len(s.text)}
	if kind == tokenError {
		stray, _, _ := bytes.Cut(s.text[t.start:t.end], []byte{0})
		s.fail(Errorf("JSON parse error, stray '%s'", stray))
		return
	}
	s.count(t)
	if excess := s.excess(); excess != "" {
		s.fail(Errorf("JSON %s limit exceeded", excess))
		return
	}
	s.tokens = append(s.tokens, t)
	s.begun = t.end
	if s.open() {
		return
	}
	s.parse()
}

// parse tells about the value of the tokens there are.
func (s *stream) parse() {
	value, err := parse(s.text, s.tokens, s.ours)
	s.reset()
	s.emit(value, err)
}

// excess names the bound that is passed.
func (s *stream) excess() string {
	switch {
	case s.ours:
		return ""
	case len(s.text) > commandBytesMax:
		return "token size"
	case len(s.tokens) >= commandTokensMax:
		return "token count"
	case s.braces+s.brackets > nestingMax:
		return "nesting depth"
	}
	return ""
}

func (s *stream) count(t token) {
	if t.kind != tokenMark {
		return
	}
	switch s.text[t.start] {
	case '{':
		s.braces++
	case '}':
		s.braces--
	case '[':
		s.brackets++
	case ']':
		s.brackets--
	}
}

func (s *stream) open() bool {
	return (s.braces > 0 || s.brackets > 0) && s.braces >= 0 && s.brackets >= 0
}

// flush is the end of the input: it ends the token and the value that are being read, however little there is of them.
func (s *stream) flush() {
	if s.lexer.state != lexStart && s.lexer.state != lexRecovery {
		s.feedByte(0) // which no token takes, and no error shows
	}
	s.lexer.state = lexStart
	if len(s.tokens) > 0 {
		s.parse()
	}
}

func (s *stream) fail(err error) {
	s.reset()
	s.emit(node{}, err)
}

func (s *stream) reset() {
	if cap(s.text) > keepBytes {
		s.text, s.tokens = nil, nil
	}
	s.text, s.tokens, s.begun = s.text[:0], s.tokens[:0], 0
	s.braces, s.brackets = 0, 0
}
