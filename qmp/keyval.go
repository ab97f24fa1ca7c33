package qmp

import "strings"

// ParseOption reads an option of a command line: JSON if it begins with a brace, or else key=value,key=value, in which two commas stand
// for one in a value. implied is the key of a first part without "=".
func ParseOption(text, implied string) (Value, error) {
	if strings.HasPrefix(text, "{") {
		return ParseValue([]byte(text))
	}
	pairs, err := splitOption(text, implied)
	if err != nil {
		return Value{}, err
	}
	return ParseOptions(func(yield func(key, value string) bool) {
		for _, p := range pairs {
			if !yield(p[0], p[1]) {
				return
			}
		}
	})
}

// splitOption cuts a text into keys and values as QEMU's keyval_parse does, with its errors.
func splitOption(text, implied string) (pairs [][2]string, err error) {
	for text != "" {
		end := strings.IndexAny(text, "=,")
		if end < 0 {
			end = len(text)
		}
		key := text[:end]
		isValue := end < len(text) && text[end] == '='
		switch {
		case key != "" && !isValue && implied != "":
			pairs = append(pairs, [2]string{implied, key})
			text = strings.TrimPrefix(text[end:], ",")
		case !wellFormed(key):
			return nil, Errorf("Invalid parameter '%s'", key)
		case !isValue:
			return nil, Errorf("Expected '=' after parameter '%s'", key)
		default:
			var value string
			value, text = cutValue(text[end+1:])
			pairs = append(pairs, [2]string{key, value})
		}
		implied = ""
	}
	return pairs, nil
}

// cutValue takes a value off the beginning.
func cutValue(text string) (value, rest string) {
	var b strings.Builder
	for {
		end := strings.IndexByte(text, ',')
		switch {
		case end < 0:
			return b.String() + text, ""
		case !strings.HasPrefix(text[end:], ",,"):
			return b.String() + text[:end], text[end+1:]
		}
		b.WriteString(text[:end+1])
		text = text[end+2:]
	}
}

// wellFormed is true for a key made of names, and behind the first of numbers too.
func wellFormed(key string) bool {
	for n, part := range strings.Split(key, ".") {
		if (n == 0 || !isIndex(part)) && !isName(part) {
			return false
		}
	}
	return true
}

// isName is true for what QAPI calls a name: a letter first.
func isName(text string) bool {
	for n, c := range []byte(text) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (n == 0 || c != '-' && c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return text != ""
}
