package qmp

// tokenKind says what a run of bytes is in JSON.
type tokenKind uint8

const (
	tokenError   tokenKind = iota // up to and with the byte that fits nowhere
	tokenMark                     // one of {}[]:,
	tokenString                   // with its quotes, escapes as they came
	tokenInteger                  // no fraction and no exponent
	tokenFloat                    //
	tokenKeyword                  // any run of a-z
)

// lexState is where in a token the lexer stands.
type lexState uint8

const (
	lexStart lexState = iota
	lexString
	lexEscape       // behind the backslash in a string
	lexMinus        // a number needs a digit now
	lexZero         // no digit may follow
	lexInteger      //
	lexPoint        // a fraction needs a digit now
	lexFraction     //
	lexExponent     // behind the e, a sign or digit must follow
	lexExponentSign // behind the sign, a digit must follow
	lexExponentDigits
	lexKeyword
	lexRecovery // behind an error: all is skipped up to something that structures
)

// lexer cuts a stream of bytes into tokens. It accepts what QEMU's does: RFC 8259, strings in single quotes, and
// the escape \'. What a string or keyword means is left to the parser. After a byte that fits nowhere, the
// lexer skips until a structural character, a control character or a byte that is never part of UTF-8, so that one typing error
// costs one message and not a hundred.
type lexer struct {
	// Owned by the goroutine that reads.
	state lexState
	quote byte
}

// verdict is what the lexer says about a byte.
type verdict uint8

const (
	lexMore       verdict = iota // belongs to the token, which goes on
	lexSkip                      // belongs to nothing
	lexLast                      // ends the token and belongs to it
	lexLastBefore                // ended the token before it; show it again
	lexWrong                     // fits nowhere; belongs to the token of the error
	lexAgain                     // show it again; there is no token before it
)

// next takes one byte. With lexLast, lexLastBefore or lexWrong a token of the given kind is complete.
func (l *lexer) next(c byte) (verdict, tokenKind) {
	was := l.state
	v, kind := l.step(c)
	switch v {
	case lexLast, lexLastBefore:
		l.state = lexStart
	case lexWrong:
		l.state = lexRecovery
	case lexMore:
		if l.state == was && was == lexStart {
			panic("qmp: the lexer goes on in a token that has not begun")
		}
	}
	return v, kind
}

func (l *lexer) step(c byte) (verdict, tokenKind) {
	switch l.state {
	case lexStart:
		return l.begin(c)
	case lexRecovery:
		return l.recover(c)
	case lexString, lexEscape:
		return l.inString(c)
	case lexKeyword:
		return l.goOn(isLower(c), lexKeyword, tokenKeyword)
	}
	return l.inNumber(c)
}

func (l *lexer) begin(c byte) (verdict, tokenKind) {
	switch {
	case isSpace(c):
		return lexSkip, 0
	case isMark(c):
		return lexLast, tokenMark
	case c == '"' || c == '\'':
		l.state, l.quote = lexString, c
	case c == '-':
		l.state = lexMinus
	case c == '0':
		l.state = lexZero
	case isDigit(c):
		l.state = lexInteger
	case isLower(c):
		l.state = lexKeyword
	default:
		return lexWrong, tokenError
	}
	return lexMore, 0
}

func (l *lexer) recover(c byte) (verdict, tokenKind) {
	if isMark(c) || c < 0x20 || c >= 0xfe {
		l.state = lexStart
		return lexAgain, 0
	}
	return lexSkip, 0
}

func (l *lexer) inString(c byte) (verdict, tokenKind) {
	switch {
	case c < 0x20 || c >= 0xfe:
		return lexWrong, tokenError
	case l.state == lexEscape:
		l.state = lexString
	case c == '\\':
		l.state = lexEscape
	case c == l.quote:
		return lexLast, tokenString
	}
	return lexMore, 0
}

func (l *lexer) inNumber(c byte) (verdict, tokenKind) {
	digit, exponent := isDigit(c), c == 'e' || c == 'E'
	switch l.state {
	case lexMinus:
		if c == '0' {
			return l.to(lexZero)
		}
		return l.need(digit, lexInteger)
	case lexZero, lexInteger:
		switch {
		case c == '.':
			return l.to(lexPoint)
		case digit && l.state == lexZero:
			return lexWrong, tokenError
		case exponent && l.state == lexInteger: // QEMU refuses 0e1, too
			return l.to(lexExponent)
		}
		return l.goOn(digit, lexInteger, tokenInteger)
	case lexPoint:
		return l.need(digit, lexFraction)
	case lexFraction:
		if exponent {
			return l.to(lexExponent)
		}
		return l.goOn(digit, lexFraction, tokenFloat)
	case lexExponent:
		if c == '+' || c == '-' {
			return l.to(lexExponentSign)
		}
		return l.need(digit, lexExponentDigits)
	case lexExponentSign:
		return l.need(digit, lexExponentDigits)
	}
	return l.goOn(digit, lexExponentDigits, tokenFloat)
}

func (l *lexer) to(state lexState) (verdict, tokenKind) {
	l.state = state
	return lexMore, 0
}

func (l *lexer) need(fits bool, state lexState) (verdict, tokenKind) {
	if !fits {
		return lexWrong, tokenError
	}
	return l.to(state)
}

func (l *lexer) goOn(fits bool, state lexState, kind tokenKind) (verdict, tokenKind) {
	if !fits {
		return lexLastBefore, kind
	}
	return l.to(state)
}

// isPlain is true for what neither ends nor escapes anything in a string.
func isPlain(c byte) bool { return c >= 0x20 && c < 0xfe && c != '\\' && c != '"' && c != '\'' }

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

func isMark(c byte) bool {
	switch c {
	case '{', '}', '[', ']', ':', ',':
		return true
	}
	return false
}
