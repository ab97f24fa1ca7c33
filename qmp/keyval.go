package qmp

import (
	"strings"

	"nbd-dataplane/internal/keyval"
)

// ParseOption reads an option of a command line: JSON if it begins with a brace, or else key=value,key=value. implied is the key
// of a first part without "=".
func ParseOption(text, implied string) (Value, error) {
	if strings.HasPrefix(text, "{") {
		return ParseValue([]byte(text))
	}
	set, err := keyval.Parse(text, implied)
	if err != nil {
		return Value{}, &Error{GenericError, err.Error()}
	}
	return ParseOptions(set.All())
}
