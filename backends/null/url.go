package null

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Scheme begins the names of null disks.
const Scheme = "null-co://"

// sizeMax bounds the size of a null disk: 8 EiB less what rounding up needs.
const sizeMax = math.MaxInt64 - sectorBytes

// latencyMax is an hour, in nanoseconds: more is a typing error.
const latencyMax = 3600 * 1e9

// IsURL reports whether name is that of a null disk.
func IsURL(name string) bool { return strings.HasPrefix(name, Scheme) }

// ParseURL reads a name such as "null-co://?size=1G&latency-ns=1000&read-zeroes=on".
func ParseURL(name string) (Options, error) {
	var o Options
	rest, ok := strings.CutPrefix(name, Scheme)
	if !ok {
		return o, fmt.Errorf("%s: the name of a null disk begins with %s", name, Scheme)
	}
	path, query, _ := strings.Cut(rest, "?")
	if path != "" {
		return o, fmt.Errorf("%s: nothing may stand between %s and '?', but %q does", name, Scheme, path)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return o, fmt.Errorf("%s: %w", name, err)
	}
	for _, key := range sortedKeys(values) {
		if len(values[key]) > 1 {
			return o, fmt.Errorf("%s: %s is given twice", name, key)
		}
		if err := o.set(key, values[key][0]); err != nil {
			return o, fmt.Errorf("%s: %w", name, err)
		}
	}
	return o, nil
}

// sortedKeys makes the error for several bad parameters the same every time.
func sortedKeys(values url.Values) []string {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func (o *Options) set(key, value string) (err error) {
	switch key {
	case "size":
		o.SizeBytes, err = parseSize(value)
	case "latency-ns":
		o.LatencyNS, err = strconv.ParseInt(value, 10, 64)
		if err != nil || o.LatencyNS < 0 || o.LatencyNS > latencyMax {
			err = fmt.Errorf("latency-ns=%s: give nanoseconds from 0 to %d", value, int64(latencyMax))
		}
	case "read-zeroes":
		o.ReadZeroes = value == "on"
		if value != "on" && value != "off" {
			err = fmt.Errorf("read-zeroes=%s: use on or off", value)
		}
	default:
		err = fmt.Errorf("unknown parameter %q: use size, latency-ns or read-zeroes", key)
	}
	return err
}

// parseSize reads bytes with one of QEMU's suffixes, powers of 1024.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	if s != "" {
		if at := strings.IndexByte("BKMGTPE", upper(s[len(s)-1])); at >= 0 {
			digits, shift = s[:len(s)-1], 10*at
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > sizeMax>>shift {
		return 0, fmt.Errorf("size=%s: give bytes, or a number with K, M, G, T, P or E, greater than 0 and less than 8E", s)
	}
	return n << shift, nil
}

func upper(c byte) byte {
	if 'a' <= c && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}
