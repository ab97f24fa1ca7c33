package nbd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// openOffers opens a file that the test closes; a warning fails the test.
func openOffers(t *testing.T, path string) *Offers {
	t.Helper()
	o, err := OpenOffers(path, func(err error) { t.Errorf("warning: %v", err) })
	require.NoError(t, err)
	return o
}

// full is an offer of all that can be offered.
var full = offer{mib, guarded, 512}

// Goal: what was offered is known to the next process, and less than that is refused in each way to be less, more is not (nbd.md, findings 1 to 3).
// Method: a file is closed and opened again before each question.
func TestOffersOutliveTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "offers")
	ask := func(now offer, allowLess bool) error {
		o := openOffers(t, path)
		_, err := o.add("a \"name\"\n", now, allowLess)
		require.NoError(t, o.Close())
		return err
	}
	require.NoError(t, ask(full, false))
	for _, c := range []struct {
		now  offer
		want string
	}{
		{offer{mib - 512, guarded, 512}, "it had 1048576 bytes and would come back with 1048064"},
		{offer{mib, guarded | FlagReadOnly, 512}, "it was writable and would come back read-only"},
		{offer{mib, guarded &^ FlagSendFUA, 512}, "it would come back without SEND_FUA"},
		{offer{mib, guarded, 4096}, "its minimum block had 512 bytes and would come back with 4096"},
	} {
		require.EqualError(t, ask(c.now, false), c.want)
		require.NoError(t, ask(c.now, true))
		require.NoError(t, ask(c.now, false), "what was allowed is what is known now")
		require.NoError(t, ask(full, false))
	}
	require.NoError(t, ask(offer{2 * mib, guarded | FlagRotational, 1}, false))
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing lies beside the file")
}

// Goal: a live resize is known to the next process, and so is a smaller size, which was wanted. Method: a server with a file, whose disk grows and shrinks.
func TestOffersFollowAResize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "offers")
	o := openOffers(t, path)
	h := newHouse(t, houseOptions{driver: &memoryDisk{bytes: make([]byte, mib)}, server: ServerOptions{Offers: o}})
	h.resize(2 * mib)
	h.resize(mib / 2)
	require.NoError(t, h.stop())
	require.NoError(t, o.Close())
	o = openOffers(t, path)
	require.Equal(t, uint64(mib/2), o.byName["disk"].size)
	require.NoError(t, o.Close())
}

// Goal: two processes do not share a file. Method: it is opened a second time, before and after a new version has taken its place, and when it was let go.
func TestOffersHaveOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "offers")
	link := path + "-link"
	require.NoError(t, os.Symlink(path, link))
	o := openOffers(t, path)
	for i := range uint64(3) {
		_, err := OpenOffers(link, nil)
		require.ErrorIs(t, err, ErrOffersHeld)
		_, err = o.add("disk", offer{i, guarded, 1}, false)
		require.NoError(t, err)
	}
	require.NoError(t, o.Close())
	o = openOffers(t, link)
	_, err := o.add("other", full, false)
	require.NoError(t, err)
	require.NoError(t, o.Close())
	kind, err := os.Lstat(link)
	require.NoError(t, err)
	require.Equal(t, os.ModeSymlink, kind.Mode().Type(), "the file behind a link is the one that is replaced")
}

// Goal: a file that is not whole is refused with what is wrong, and left alone. Method: a table; a directory, a FIFO, a place that is not there.
func TestOffersRefuseDamage(t *testing.T) {
	const good = `{"name":"a","size":1,"writable":true,"abilities":["FUA"],"min-block":1}`
	for text, want := range map[string]string{
		"{}":                                     "no version",
		"\x00":                                   "damaged",
		`{"version":1}`:                          "no exports",
		`{"version":1,"exports"`:                 "damaged",
		`{"version":2,"exports":[]}`:             "it is of version 2, and this program knows version 1",
		`{"version":1,"exports":[]} {}`:          "behind the end, at byte 28",
		`{"version":1,"exports":[],"more":1}`:    `unknown field "more"`,
		`{"version":1,"exports":[{"name":"a"}]}`: "export 1: one of name, size",
		`{"version":1,"exports":[` + good + `,` + good + `]}`:      "export 2: it is there twice",
		one(good, `"size":1`, `"size":-1`):                         "damaged",
		one(good, `"size":1`, `"size":9223372036854775808`):        "export 1: size 9223372036854775808",
		one(good, `"min-block":1`, `"min-block":3`):                "export 1: min-block 3",
		one(good, `"min-block":1`, `"min-block":131072`):           "export 1: min-block 131072",
		one(good, `"FUA"`, `"FLY"`):                                `export 1: ability "FLY"`,
		one(good, `"a"`, `"a\u0000"`):                              "export 1: name: contains a NUL byte",
		one(good, `"a"`, `"`+strings.Repeat("a", stringMax+1)+`"`): "export 1: name: 4097 bytes long",
		strings.Repeat(" ", offersFileMax+1):                       "damaged: more than",
	} {
		path := filepath.Join(t.TempDir(), "offers")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := OpenOffers(path, nil)
		require.ErrorContains(t, err, want, "%.100s", text)
		left, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, text, string(left))
	}
	_, err := OpenOffers(t.TempDir(), nil)
	require.ErrorContains(t, err, "is a directory")
	_, err = OpenOffers("/dev/null", nil)
	require.EqualError(t, err, "it is not a regular file")
	_, err = OpenOffers(filepath.Join(t.TempDir(), "nowhere", "offers"), nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// one is a file with one export, in which something is something else.
func one(good, part, instead string) string {
	return `{"version":1,"exports":[` + strings.Replace(good, part, instead, 1) + `]}`
}

// Goal: where the file cannot be written, an export that it does not know is refused and leaves nothing behind, one that it knows is not, and a resize is a
// warning; what is missing is written as soon as that is possible. Method: something in the way of the next version.
func TestOffersThatCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "offers")
	warnings := make(chan error, 1)
	o, err := OpenOffers(path, func(err error) { warnings <- err })
	require.NoError(t, err)
	h := newHouse(t, houseOptions{driver: &memoryDisk{bytes: make([]byte, mib)}, server: ServerOptions{Offers: o}})
	require.NoError(t, os.MkdirAll(path+".new/full", 0o700))
	node, err := h.graph.AddNode(blockcore.NodeOptions{Name: "next", Context: h.ctx, Driver: blocktest.NewFake(blocktest.FakeOptions{})})
	require.NoError(t, err)
	h.nodes = append(h.nodes, node)
	_, err = h.server.AddExport(h.graph, ExportOptions{Name: "next", Node: node})
	require.ErrorContains(t, err, `export "next": what it offers cannot be remembered: remove: directory not empty`)
	require.Len(t, h.server.Exports(), 1)
	require.Len(t, o.byName, 1)
	_, err = o.add("disk", o.byName["disk"].offer, false)
	require.NoError(t, err)
	<-warnings // of the undo

	h.resize(2 * mib)
	require.ErrorContains(t, <-warnings, path+": a new size cannot be remembered")
	require.NoError(t, h.stop())
	require.NoError(t, os.RemoveAll(path+".new"))
	require.NoError(t, o.Close())
	o = openOffers(t, path)
	require.Equal(t, uint64(2*mib), o.byName["disk"].size)
	require.Len(t, o.byName, 1)
	require.NoError(t, o.Close())
}

// Goal: an export that is not offered after all leaves no trace. Method: a server that is stopping refuses it; larger, and new.
func TestOffersAreTakenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "offers")
	o := openOffers(t, path)
	_, err := o.add("next", offer{512, FlagSendFlush, 1}, false)
	require.NoError(t, err)
	h := newHouse(t, houseOptions{server: ServerOptions{Offers: o}})
	require.NoError(t, h.stop())
	for _, name := range []string{"next", "new"} {
		_, err := h.server.AddExport(h.graph, ExportOptions{Name: name, Node: h.node, Writable: true})
		require.ErrorIs(t, err, errStopping)
	}
	require.NoError(t, o.Close())
	o = openOffers(t, path)
	require.Equal(t, uint64(512), o.byName["next"].size)
	require.Len(t, o.byName, 2)
	require.NoError(t, o.Close())
}

// Goal: what is remembered is bounded, in number and in bytes, and what is not used goes first. Method: more names than fit, of which the first is used
// again and again; long ones.
func TestOffersForgetTheOldest(t *testing.T) {
	o := NewOffers()
	for i := range offersMax + 10 {
		_, err := o.add(fmt.Sprint(i), full, false)
		require.NoError(t, err)
		_, err = o.add("0", full, false)
		require.NoError(t, err)
	}
	require.Len(t, o.byName, offersMax)
	require.Contains(t, o.byName, "0")
	require.NotContains(t, o.byName, "10")
	require.Contains(t, o.byName, "11")
	for i := range 300 {
		_, err := o.add(strings.Repeat("a", stringMax-3)+fmt.Sprint(100+i), full, false)
		require.NoError(t, err)
	}
	require.Len(t, o.byName, offersNamesMax/stringMax)
	require.LessOrEqual(t, o.bytes, offersNamesMax)
	text := encodeOffers(o.records())
	require.LessOrEqual(t, len(text), offersFileMax)
	back, err := decodeOffers(text)
	require.NoError(t, err)
	require.Equal(t, o.records(), back)
}

// FuzzOffers: no file crashes the reader, and what it understands it writes so that it understands the same.
func FuzzOffers(f *testing.F) {
	f.Add(encodeOffers([]record{{"disk", full}, {"", offer{0, FlagReadOnly, 1}}}))
	f.Add([]byte(`{"version":1,"exports":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, err := decodeOffers(text)
		if err != nil {
			return
		}
		again, err := decodeOffers(encodeOffers(records))
		require.NoError(t, err)
		require.Equal(t, records, again)
	})
}

// Goal: an error that says what is less can be told from one of the file. Method: both.
func TestRefusedOfferNamesTheRemedy(t *testing.T) {
	require.ErrorContains(t, refusedOffer("disk", full.allows(offer{})), "--allow-less, in QMP x-allow-less")
	require.EqualError(t, refusedOffer("disk", errors.New("no room")), `export "disk": no room`)
}
