// Package keyval reads option strings as QEMU writes them: "driver=raw,file.filename=disk.img", sizes with a suffix and
// switches. Dotted keys stay flat.
//
// Who reads a Set takes the keys it knows; what is left over is what it does not know.
package keyval

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Error says which parameter is wrong and why, in QEMU's words.
type Error struct {
	Parameter string
	Problem   string // completes "Parameter 'x' "
	Hint      string // what would be right; may be empty
}

func (e *Error) Error() string { return fmt.Sprintf("Parameter '%s' %s", e.Parameter, e.Problem) }

// ErrSyntax is wrapped by errors about the string as a whole.
var ErrSyntax = errors.New("not a list of key=value")

type pair struct{ key, value string }

// Set is the parameters of one option string, in their order, each key once: the last value counts, as in QEMU.
type Set struct {
	pairs []pair
}

// Parse reads "key=value,key=value". A doubled comma stands for a comma in a value. implied is the key of a first
// part that has no "="; with an empty implied such a part is an error, as is any later one.
func Parse(s, implied string) (*Set, error) {
	set := &Set{}
	for n, part := range split(s) {
		key, value, found := strings.Cut(part, "=")
		if !found {
			if n > 0 || implied == "" {
				return nil, fmt.Errorf("%w: %q has no '='", ErrSyntax, part)
			}
			key, value = implied, part
		}
		if err := checkKey(key); err != nil {
			return nil, err
		}
		set.put(key, value)
	}
	return set, nil
}

// Switch is a part of an option string that has no "=".
type Switch struct {
	Part       string // as it stands there
	Key, Value string // what it means
}

// ParseSwitches is Parse of a string in which a part without a "=" is a switch: NAME for NAME=on, and noNAME for NAME=off unless known says that a key
// is called so. Those are returned as well, for who wants to warn of them.
func ParseSwitches(s string, known func(key string) bool) (*Set, []Switch, error) {
	set, switches := &Set{}, []Switch(nil)
	for _, part := range split(s) {
		key, value, found := strings.Cut(part, "=")
		if !found {
			key, value = part, "on"
			if off, negative := strings.CutPrefix(part, "no"); negative && !known(part) {
				key, value = off, "off"
			}
			switches = append(switches, Switch{part, key, value})
		}
		if err := checkKey(key); err != nil {
			return nil, nil, err
		}
		set.put(key, value)
	}
	return set, switches, nil
}

// split cuts at single commas; doubled ones become one. A trailing comma adds no part.
func split(s string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != ',':
			part.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == ',':
			part.WriteByte(',')
			i++
		default:
			parts = append(parts, part.String())
			part.Reset()
		}
	}
	if part.Len() > 0 {
		parts = append(parts, part.String())
	}
	return parts
}

func checkKey(key string) error {
	for piece := range strings.SplitSeq(key, ".") {
		if piece == "" {
			return fmt.Errorf("%w: invalid parameter '%s'", ErrSyntax, key)
		}
	}
	if strings.ContainsAny(key, " \t\n'\"") {
		return fmt.Errorf("%w: invalid parameter '%s'", ErrSyntax, key)
	}
	return nil
}

// Put adds a key, or gives it another value.
func (s *Set) Put(key, value string) { s.put(key, value) }

func (s *Set) put(key, value string) {
	s.pairs = slices.DeleteFunc(s.pairs, func(p pair) bool { return p.key == key })
	s.pairs = append(s.pairs, pair{key, value})
}

// Take removes key and returns its value.
func (s *Set) Take(key string) (value string, found bool) {
	for n, p := range s.pairs {
		if p.key == key {
			s.pairs = slices.Delete(s.pairs, n, n+1)
			return p.value, true
		}
	}
	return "", false
}

// TakeOr is Take with a default.
func (s *Set) TakeOr(key, otherwise string) string {
	if v, found := s.Take(key); found {
		return v
	}
	return otherwise
}

// TakeNeeded is Take of a key that has to be there.
func (s *Set) TakeNeeded(key string) (string, error) {
	v, found := s.Take(key)
	if !found {
		return "", &Error{Parameter: key, Problem: "is missing"}
	}
	return v, nil
}

// TakeBool is Take of a switch.
func (s *Set) TakeBool(key string, otherwise bool) (bool, error) {
	v, found := s.Take(key)
	if !found {
		return otherwise, nil
	}
	return Bool(key, v)
}

// TakeSize is Take of a size in bytes.
func (s *Set) TakeSize(key string, otherwise int64) (int64, error) {
	v, found := s.Take(key)
	if !found {
		return otherwise, nil
	}
	return Size(key, v)
}

// TakeGroup removes the keys below prefix and returns them without it: of "file.driver=x" and the prefix "file", "driver=x".
func (s *Set) TakeGroup(prefix string) *Set {
	group := &Set{}
	s.pairs = slices.DeleteFunc(s.pairs, func(p pair) bool {
		rest, found := strings.CutPrefix(p.key, prefix+".")
		if found {
			group.put(rest, p.value)
		}
		return found
	})
	return group
}

// Keys returns what nobody has taken.
func (s *Set) Keys() []string {
	var keys []string
	for _, p := range s.pairs {
		keys = append(keys, p.key)
	}
	return keys
}

// All are the keys and values that nobody has taken.
func (s *Set) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for _, p := range s.pairs {
			if !yield(p.key, p.value) {
				return
			}
		}
	}
}

// Empty says that everything has been taken.
func (s *Set) Empty() bool { return len(s.pairs) == 0 }
