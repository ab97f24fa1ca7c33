package keyval_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/keyval"
)

// taken empties a set into text that can be compared.
func taken(s *keyval.Set) map[string]string {
	all := map[string]string{}
	for _, key := range s.Keys() {
		all[key], _ = s.Take(key)
	}
	return all
}

// Goal: option strings mean what they mean to QEMU. Method: a table of strings and their keys.
func TestParse(t *testing.T) {
	for _, row := range []struct {
		in, implied string
		want        map[string]string
	}{
		{"", "", map[string]string{}},
		{"a=b", "", map[string]string{"a": "b"}},
		{"a=b,", "", map[string]string{"a": "b"}},
		{"a=b,c=d=e", "", map[string]string{"a": "b", "c": "d=e"}},
		{"a=x,,y,b=", "", map[string]string{"a": "x,y", "b": ""}},
		{"a=1,a=2", "", map[string]string{"a": "2"}},
		{"file.filename=d.img,driver=raw", "", map[string]string{"file.filename": "d.img", "driver": "raw"}},
		{"tls-creds-x509,id=t", "qom-type", map[string]string{"qom-type": "tls-creds-x509", "id": "t"}},
		{"qom-type=x", "qom-type", map[string]string{"qom-type": "x"}},
	} {
		s, err := keyval.Parse(row.in, row.implied)
		require.NoError(t, err, row.in)
		require.Equal(t, row.want, taken(s), row.in)
		require.True(t, s.Empty())
	}
}

// Goal: parts without a "=" are switches, on or off, but for names that begin with "no" themselves. Method: a table of strings, their keys and their switches.
func TestParseSwitches(t *testing.T) {
	known := func(key string) bool { return key == "nocow" }
	for _, row := range []struct {
		in       string
		want     map[string]string
		switches []keyval.Switch
	}{
		{"", map[string]string{}, nil},
		{"a=b", map[string]string{"a": "b"}, nil},
		{"a", map[string]string{"a": "on"}, []keyval.Switch{{Part: "a", Key: "a", Value: "on"}}},
		{"b=1,noa", map[string]string{"b": "1", "a": "off"}, []keyval.Switch{{Part: "noa", Key: "a", Value: "off"}}},
		{"nocow", map[string]string{"nocow": "on"}, []keyval.Switch{{Part: "nocow", Key: "nocow", Value: "on"}}},
	} {
		s, switches, err := keyval.ParseSwitches(row.in, known)
		require.NoError(t, err, row.in)
		require.Equal(t, row.switches, switches, row.in)
		require.Equal(t, row.want, taken(s), row.in)
	}
	for _, in := range []string{"=x", "no", "a.", "a b"} {
		_, _, err := keyval.ParseSwitches(in, known)
		require.ErrorIs(t, err, keyval.ErrSyntax, in)
	}
}

// Goal: a string that is no list of parameters is refused. Method: a table of such strings.
func TestParseRefuses(t *testing.T) {
	for _, in := range []string{"a", "a=b,c", "=b", "a..b=c", ".a=b", "a.=b", "a b=c"} {
		_, err := keyval.Parse(in, "")
		require.ErrorIs(t, err, keyval.ErrSyntax, in)
	}
}

// Goal: sizes are read as QEMU reads them. Method: a table, the limits among it.
func TestSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "512b": 512, "1k": 1 << 10, "1K": 1 << 10, "64M": 64 << 20, "1.5G": 3 << 29, "2T": 2 << 40, "1P": 1 << 50,
		"7E": 7 << 60, "0x10": 16, "0x10k": 16 << 10, "010": 10, "9223372036854775807": math.MaxInt64, "0x1e": 30,
		"1.7k": 1741, "0.0004k": 0, "0.0005k": 1,
	} {
		got, err := keyval.Size("size", in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "k", "-1", "1x", "1.5", "1.k", ".5k", "8E", "9223372036854775808", "1 k", "0x", "0xg", "1kk", "+1", "1e3"} {
		_, err := keyval.Size("size", in)
		var wrong *keyval.Error
		require.ErrorAs(t, err, &wrong, in)
		require.Equal(t, "size", wrong.Parameter)
	}
}

// Goal: a reader finds what it asks for and sees what is left over. Method: one set, taken apart.
func TestTake(t *testing.T) {
	s, err := keyval.Parse("driver=raw,size=1k,ro=on,bad=maybe,file.filename=f,file.locking=off,more=x", "")
	require.NoError(t, err)
	require.Equal(t, "raw", s.TakeOr("driver", "?"))
	require.Equal(t, "?", s.TakeOr("driver", "?"))
	size, err := s.TakeSize("size", 7)
	require.NoError(t, err)
	require.EqualValues(t, 1024, size)
	size, err = s.TakeSize("size", 7)
	require.NoError(t, err)
	require.EqualValues(t, 7, size)
	on, err := s.TakeBool("ro", false)
	require.NoError(t, err)
	require.True(t, on)
	_, err = s.TakeBool("bad", false)
	require.EqualError(t, err, "Parameter 'bad' expects 'on' or 'off'")
	_, err = s.TakeNeeded("id")
	require.EqualError(t, err, "Parameter 'id' is missing")
	require.Equal(t, map[string]string{"filename": "f", "locking": "off"}, taken(s.TakeGroup("file")))
	require.Equal(t, []string{"more"}, s.Keys())
}

// Goal: no string makes the readers panic, and what is read stays within its limits. Method: fuzzing with a few seeds.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"a=b,c.d=e", "tls-creds-x509,id=x,,y", "0x10k", "1.5G"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		keyval.Parse(in, "driver")
		if size, err := keyval.Size("x", in); err == nil && size < 0 {
			t.Errorf("size %q is read as %d", in, size)
		}
	})
}
