package keyval

import (
	"math"
	"strconv"
	"strings"
)

const (
	sizeProblem = "expects a non-negative number below 2^63"
	sizeHint    = "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta- and exabytes, respectively."
)

// Bool reads a switch: on or off, and what QEMU still takes for them.
func Bool(parameter, v string) (bool, error) {
	switch v {
	case "on", "yes", "true", "y":
		return true, nil
	case "off", "no", "false", "n":
		return false, nil
	}
	return false, &Error{Parameter: parameter, Problem: "expects 'on' or 'off'"}
}

// Size reads a number of bytes: decimal, also with a fraction, which is rounded to bytes, or hexadecimal, with one of the suffixes b, k, M, G, T, P
// or E, which stand for powers of 1024 in either case of letter. A hexadecimal number takes no b and E, which are its digits.
func Size(parameter, v string) (int64, error) {
	bytes, ok := parseSize(v)
	if !ok {
		return 0, &Error{Parameter: parameter, Problem: sizeProblem, Hint: sizeHint}
	}
	return bytes, nil
}

func parseSize(v string) (int64, bool) {
	if digits, isHex := cutHex(v); isHex {
		return parseHex(digits)
	}
	digits, shift := cutSuffix(v)
	whole, fraction, hasFraction := strings.Cut(digits, ".")
	if !isDecimal(whole) || hasFraction && (!isDecimal(fraction) || shift == 0) {
		return 0, false
	}
	n, err := strconv.ParseUint(whole, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, false
	}
	bytes := n << shift
	if hasFraction {
		f, err := strconv.ParseFloat("0."+fraction, 64)
		if err != nil {
			return 0, false
		}
		bytes += uint64(f*float64(uint64(1)<<shift) + 0.5)
	}
	return int64(bytes), bytes <= math.MaxInt64
}

func cutHex(v string) (digits string, isHex bool) {
	if len(v) > 2 && v[0] == '0' && (v[1] == 'x' || v[1] == 'X') {
		return v[2:], true
	}
	return v, false
}

func parseHex(digits string) (int64, bool) {
	shift := uint(0)
	if last := digits[len(digits)-1]; !strings.ContainsRune("bBeE", rune(last)) {
		digits, shift = cutSuffix(digits)
	}
	n, err := strconv.ParseUint(digits, 16, 63)
	if err != nil || n > math.MaxInt64>>shift || strings.Contains(digits, "_") {
		return 0, false
	}
	return int64(n << shift), true
}

func cutSuffix(v string) (digits string, shift uint) {
	if v == "" {
		return v, 0
	}
	n := strings.IndexByte("bkmgtpe", v[len(v)-1]|0x20)
	if n < 0 {
		return v, 0
	}
	return v[:len(v)-1], uint(10 * n)
}

func isDecimal(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
