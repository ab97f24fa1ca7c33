package nbd

import (
	"strings"
	"unicode/utf8"
)

// globMatch reports whether pattern matches all of s, as fnmatch(3) without flags does it in a UTF-8
// locale: '*' is any run of characters, '/' among them, '?' any one, "[a-z]" and "[!a-z]" one of a set,
// and a backslash takes the next character literally. path.Match is not it: its '*' stops at a slash, and names of
// services in certificates have slashes.
//
// It looks back only to the last '*', which is enough, so that no pattern makes it slow.
func globMatch(pattern, s string) bool {
	var starPattern, starRest string
	star := false
	for {
		if rest, ok := strings.CutPrefix(pattern, "*"); ok {
			pattern, starPattern, starRest, star = rest, rest, s, true
			continue
		}
		if p, r, ok := globOne(pattern, s); ok {
			pattern, s = p, r
			continue
		}
		if pattern == "" && s == "" {
			return true
		}
		if !star || starRest == "" {
			return false
		}
		_, size := utf8.DecodeRuneInString(starRest)
		starRest = starRest[size:]
		pattern, s = starPattern, starRest
	}
}

// globOne matches the first element of pattern, which is no '*', with the first character of s.
func globOne(pattern, s string) (restPattern, rest string, ok bool) {
	if pattern == "" || s == "" {
		return "", "", false
	}
	c, size := utf8.DecodeRuneInString(s)
	rest = s[size:]
	switch pattern[0] {
	case '?':
		return pattern[1:], rest, true
	case '[':
		if set, after, ok := globSet(pattern[1:]); ok {
			return after, rest, set.has(c)
		}
	case '\\':
		if len(pattern) == 1 {
			return "", "", false
		}
		pattern = pattern[1:]
	}
	_, patternSize := utf8.DecodeRuneInString(pattern)
	return pattern[patternSize:], rest, pattern[:patternSize] == s[:size] // bytes: no two bad ones are equal
}

// charSet is a bracket expression without its brackets.
type charSet struct {
	inverted bool
	ranges   [][2]rune
	classes  []string
}

// globSet parses a bracket expression behind its '['. One that is not closed is none: its '[' stands for
// itself.
func globSet(p string) (set charSet, after string, ok bool) {
	if p != "" && (p[0] == '!' || p[0] == '^') {
		set.inverted, p = true, p[1:]
	}
	for first := true; ; first = false {
		if p == "" {
			return set, "", false
		}
		if p[0] == ']' && !first {
			return set, p[1:], true
		}
		if name, rest, isClass := cutClass(p); isClass {
			set.classes, p = append(set.classes, name), rest
			continue
		}
		var low, high rune
		low, p = setChar(p)
		high = low
		if len(p) > 1 && p[0] == '-' && p[1] != ']' {
			high, p = setChar(p[1:])
		}
		set.ranges = append(set.ranges, [2]rune{low, high})
	}
}

// cutClass takes "[:name:]" off the front of p.
func cutClass(p string) (name, rest string, ok bool) {
	if !strings.HasPrefix(p, "[:") {
		return "", p, false
	}
	name, rest, ok = strings.Cut(p[2:], ":]")
	return name, rest, ok
}

// setChar takes one character, escaped or not, off the front of p.
func setChar(p string) (rune, string) {
	if p[0] == '\\' && len(p) > 1 {
		p = p[1:]
	}
	c, size := utf8.DecodeRuneInString(p)
	return c, p[size:]
}

func (s *charSet) has(c rune) bool {
	for _, r := range s.ranges {
		if r[0] <= c && c <= r[1] {
			return !s.inverted
		}
	}
	for _, name := range s.classes {
		if inClass(name, c) {
			return !s.inverted
		}
	}
	return s.inverted
}

// inClass reports whether c is in a POSIX character class; of the letters only those of ASCII are.
func inClass(name string, c rune) bool {
	between := func(low, high rune) bool { return low <= c && c <= high }
	digit, lower, upper := between('0', '9'), between('a', 'z'), between('A', 'Z')
	switch name {
	case "digit":
		return digit
	case "lower":
		return lower
	case "upper":
		return upper
	case "alpha":
		return lower || upper
	case "alnum":
		return digit || lower || upper
	case "xdigit":
		return digit || between('a', 'f') || between('A', 'F')
	case "space":
		return c == ' ' || between('\t', '\r')
	case "blank":
		return c == ' ' || c == '\t'
	case "punct":
		return between('!', '~') && !digit && !lower && !upper
	}
	return false
}
