package nbd

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: metadata contexts are listed and selected as the specification asks. Method: scenes on the state machine, one per
// requirement.
func TestMetaContexts(t *testing.T) {
	const (
		base  = "base:allocation"
		depth = "qemu:allocation-depth"
		one   = "qemu:dirty-bitmap:one"
		two   = "qemu:dirty-bitmap:two"

		listed = "CONTEXT 0 " + base + "; CONTEXT 0 " + depth + "; CONTEXT 0 " + one + "; CONTEXT 0 " + two + "; ACK"
	)
	structured := line{OptStructuredReply, nil, "ACK"}
	set := func(want string, queries ...string) line {
		return line{OptSetMetaContext, meta("disk", queries...), want}
	}
	list := func(want string, queries ...string) line {
		return line{OptListMetaContext, meta("disk", queries...), want}
	}
	goDisk := func(flags string) line {
		return line{OptGo, info("disk"), "EXPORT 1048576 " + flags + "; ACK; -> transmission"}
	}
	play(t, []scene{
		{"MET-1", TLSOff, []line{
			structured, {OptSetMetaContext, nil, "ERR_INVALID"}, {OptListMetaContext, raw(uint32(4), "disk"), "ERR_INVALID"},
			{OptListMetaContext, raw(uint32(0xffffffff), "disk", uint32(0)), "ERR_INVALID"},
			{OptListMetaContext, raw(uint32(4), "disk", uint32(0xffffffff)), "ERR_INVALID"}, list(listed),
		}},
		{"BAD-13", TLSOff, []line{
			structured, {OptListMetaContext, raw(uint32(4), "disk", uint32(1), uint32(6), "base:"), "ERR_INVALID"},
			{OptSetMetaContext, raw(uint32(4), "disk", uint32(1), uint32(0xffffffff), "base:"), "ERR_INVALID"},
			{OptSetMetaContext, raw(uint32(4), "disk", uint32(2), uint32(5), "base:"), "ERR_INVALID"},
			{OptSetMetaContext, raw(uint32(4), "disk", uint32(2), uint32(5), "base:", uint16(0)), "ERR_INVALID"}, list(listed),
		}},
		{"MET-2", TLSOff, []line{structured, set("CONTEXT 0 "+base+"; ACK", "x-vendor:thing", base, "nocolon", "base:nothing", "qemu:nothing")}},
		{"MET-3", TLSOff, []line{structured, set("ACK", "x-vendor:thing"), list("ACK", "x-vendor:")}},
		{"MET-4", TLSOff, []line{list(listed), structured, list(listed)}},
		{"MET-5", TLSOff, []line{list("CONTEXT 0 "+depth+"; ACK", depth), list("CONTEXT 0 "+base+"; CONTEXT 0 "+depth+"; ACK", depth, "base:")}},
		{"MET-6", TLSOff, []line{structured, set("CONTEXT 0 "+base+"; ACK", base), set("ACK"), {OptExtendedHeaders, nil, "ACK"}, goDisk("0x8ed")}},
		{"MET-6 by a failure", TLSOff, []line{
			structured, set("CONTEXT 0 "+base+"; ACK", base), {OptSetMetaContext, bytesOf(3), "ERR_INVALID"},
			{OptExtendedHeaders, nil, "ACK"}, goDisk("0x8ed"),
		}},
		{"MET-6 LIST does not", TLSOff, []line{{OptExtendedHeaders, nil, "ACK"}, set("CONTEXT 0 "+base+"; ACK", base), list(listed), goDisk("0x18ed")}},
		{"MET-7", TLSOff, []line{structured, set("CONTEXT 0 "+base+"; CONTEXT 3 "+two+"; ACK", two, base, two, base)}},
		{"MET-8", TLSOff, []line{
			structured, set("ERR_TOO_BIG", make([]string, queriesMax+1)...), set("ACK", make([]string, queriesMax)...),
			set("ERR_TOO_BIG", strings.Repeat("x", 4096), strings.Repeat("x", 4096), strings.Repeat("x", 4096), strings.Repeat("x", 4096)),
		}},
		{"MET-9", TLSOff, []line{set("ERR_INVALID", base), {OptExtendedHeaders, nil, "ACK"}, set("CONTEXT 0 "+base+"; ACK", base)}},
		{"MET-10", TLSOff, []line{
			structured, {OptSetMetaContext, meta("no", base), "ERR_UNKNOWN"}, {OptListMetaContext, meta("no"), "ERR_UNKNOWN"},
			{OptListMetaContext, meta("secret"), "ERR_UNKNOWN"},
		}},
		{"MET-11", TLSOff, []line{
			{OptExtendedHeaders, nil, "ACK"}, set("CONTEXT 0 "+base+"; ACK", base), {OptInfo, info("rough"), "EXPORT 1048576 0x83; ACK"},
			goDisk("0x18ed"),
		}},
		{"MET-12", TLSOff, []line{structured, set("ACK", "base:", "qemu:", "qemu:dirty-bitmap:")}},
		{"CTX-1", TLSOff, []line{list("ACK", "allocation", "Base:allocation", ":allocation", "")}},
		{"CTX-4", TLSOff, []line{list("CONTEXT 0 "+base+"; ACK", "base:"), list("ACK", "base:leaf"), structured, set("ACK", "base:", "base:leaf")}},
		{"CTX-7", TLSOff, []line{
			list("CONTEXT 0 "+depth+"; CONTEXT 0 "+one+"; CONTEXT 0 "+two+"; ACK", "qemu:"),
			list("CONTEXT 0 "+one+"; CONTEXT 0 "+two+"; ACK", "qemu:dirty-bitmap:", "qemu:dirty-bitmap"),
		}},
	})
}

// Goal: contexts hold for the export they were set for, as long as it has them (MET-11). Method: SET on one name, GO on it,
// on another, and on its other name; and an export that loses a context between.
func TestContextsBelongToAnExport(t *testing.T) {
	select1 := func() *conversation {
		c := newConversation(t, TLSOff)
		c.say(OptStructuredReply, nil)
		require.Equal(t, "CONTEXT 0 base:allocation; CONTEXT 2 qemu:dirty-bitmap:one; ACK",
			c.say(OptSetMetaContext, meta("", "base:allocation", "qemu:dirty-bitmap:one")))
		return c
	}
	both := []metaContext{{0, "base:allocation"}, {2, "qemu:dirty-bitmap:one"}}

	for _, name := range []string{"", "disk"} {
		c := select1()
		c.say(OptGo, info(name))
		require.Equal(t, both, c.n.result.contexts)
	}
	c := select1()
	c.say(OptGo, info("rough"))
	require.Empty(t, c.n.result.contexts)

	c = select1()
	exports := testExports()
	exports[0].Contexts = []string{"base:allocation"}
	c.n.catalog = exports
	c.say(OptGo, info("disk"))
	require.Equal(t, both[:1], c.n.result.contexts)
}
