package nfs

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"nbd-dataplane/internal/imagelock"
)

// Scheme begins the names of files on NFS servers.
const Scheme = "nfs://"

// IsURL reports whether name is that of a file on an NFS server.
func IsURL(name string) bool { return strings.HasPrefix(name, Scheme) }

// URLError is something wrong with a URL, in our words and in QEMU's.
type URLError struct{ Text, QEMU string }

func (e *URLError) Error() string { return e.Text }

// ParseURL reads nfs://HOST[:PORT]/EXPORT/FILE[?KEY=VALUE&...], as libnfs and QEMU do. PORT is that of the NFS program.
func ParseURL(name string) (o Options, ignored []string, err error) {
	u, err := url.Parse(name)
	switch {
	case err != nil:
		return o, nil, &URLError{fmt.Sprintf("%s: %v", name, err), "Invalid URI specified"}
	case u.Scheme != "nfs":
		return o, nil, &URLError{fmt.Sprintf("%s: it does not begin with %s", name, Scheme), "URI scheme must be 'nfs'"}
	case u.Hostname() == "":
		return o, nil, &URLError{name + ": the server is missing; write nfs://HOST/EXPORT/FILE", "missing hostname in URI"}
	case strings.Count(u.Host, ":") > 1 && !strings.HasPrefix(u.Host, "["):
		return o, nil, &URLError{name + ": an IPv6 address stands in brackets: nfs://[ADDRESS]/EXPORT/FILE", "Invalid URI specified"}
	case u.Path == "" || u.Path == "/":
		return o, nil, &URLError{name + ": the file is missing; write nfs://HOST/EXPORT/FILE", "missing file path in URI"}
	case u.User != nil || u.Fragment != "":
		return o, nil, &URLError{name + ": a URL of NFS has no user and no fragment; give uid= and gid=", "Invalid URI specified"}
	}
	o.Host, o.Path = u.Hostname(), u.Path
	if port := u.Port(); port != "" {
		if o.NFSPort, err = strconv.Atoi(port); err != nil || o.NFSPort < 1 || o.NFSPort > 65535 {
			return o, nil, &URLError{fmt.Sprintf("%s: there is no port %s; give 1 to 65535", name, port), "Invalid URI specified"}
		}
	}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return o, nil, &URLError{fmt.Sprintf("%s: %v", name, err), "Invalid URI specified"}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if other := shortNames[key]; values.Has(other) || key == "nfsport" && u.Port() != "" {
			return o, nil, &URLError{fmt.Sprintf("%s: %s says again what %s says", name, key, cmp.Or(other, "the port of the server")), "Illegal value for NFS parameter: " + key}
		}
		used, err := o.set(key, values[key])
		if err != nil {
			err.Text = name + ": " + err.Text
			return o, nil, err
		}
		if !used {
			ignored = append(ignored, key)
		}
	}
	return o, ignored, nil
}

// parameters are the numbers that a URL may give: the largest value, and where it goes; nil = nowhere. The long names are those of
// blockdev-add.
var parameters = map[string]struct {
	most uint64
	put  func(o *Options, v uint64)
}{
	"uid":             {1<<32 - 1, func(o *Options, v uint64) { o.UID = ptr(uint32(v)) }},
	"gid":             {1<<32 - 1, func(o *Options, v uint64) { o.GID = ptr(uint32(v)) }},
	"nlmport":         {65535, func(o *Options, v uint64) { o.LockPort = int(v) }},
	"tcp-syncnt":      {synCountMax, func(o *Options, v uint64) { o.SynCount = int(v) }},
	"tcp-syn-count":   {synCountMax, func(o *Options, v uint64) { o.SynCount = int(v) }},
	"nfsport":         {65535, func(o *Options, v uint64) { o.NFSPort = int(v) }},
	"mountport":       {65535, func(o *Options, v uint64) { o.MountPort = int(v) }},
	"timeout":         {uint64(timeoutMax / time.Second), func(o *Options, v uint64) { o.Timeout = time.Duration(v) * time.Second }},
	"connections":     {ConnectionsMax, func(o *Options, v uint64) { o.Connections = int(v) }},
	"readahead":       {1<<63 - 1, nil},
	"readahead-size":  {1<<63 - 1, nil},
	"pagecache":       {1<<63 - 1, nil},
	"page-cache-size": {1<<63 - 1, nil},
	"debug":           {1<<31 - 1, nil},
}

// shortNames are libnfs's, of what blockdev-add calls otherwise.
var shortNames = map[string]string{"tcp-syn-count": "tcp-syncnt", "readahead-size": "readahead", "page-cache-size": "pagecache"}

// ParameterNames are what a URL may say behind the '?', sorted.
func ParameterNames() []string {
	names := append(slices.Collect(maps.Keys(parameters)), keyLocking)
	slices.Sort(names)
	return names
}

// keyLocking is the one parameter that is no number.
const keyLocking = "locking"

func ptr[T any](v T) *T { return &v }

// set takes a parameter over, and reports whether it is of any use.
func (o *Options) set(key string, given []string) (used bool, _ *URLError) {
	known, is := parameters[key]
	if !is && key != keyLocking {
		return false, &URLError{fmt.Sprintf("unknown parameter %q; use one of %s", key, strings.Join(ParameterNames(), ", ")),
			"Unknown NFS parameter name: " + key}
	}
	if len(given) > 1 {
		return false, &URLError{key + " is given twice", "Illegal value for NFS parameter: " + key}
	}
	if key == keyLocking {
		l, err := imagelock.ParseMode(given[0])
		if err != nil {
			return false, &URLError{err.Error(), "Illegal value for NFS parameter: " + key}
		}
		o.Locking = l
		return true, nil
	}
	v, err := number(given[0])
	if err != nil || v > known.most {
		return false, &URLError{fmt.Sprintf("%s=%s: give a number up to %d", key, given[0], known.most), "Illegal value for NFS parameter: " + key}
	}
	if known.put == nil {
		return v == 0, nil
	}
	known.put(o, v)
	return true, nil
}

// number reads a number as QEMU does in URLs: 0x16 is hexadecimal, and 016 octal.
func number(s string) (uint64, error) {
	switch {
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		return strconv.ParseUint(s[2:], 16, 64)
	case strings.HasPrefix(s, "0") && s != "0":
		return strconv.ParseUint(s, 8, 64)
	}
	return strconv.ParseUint(s, 10, 64)
}
