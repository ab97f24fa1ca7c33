package nbd

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: names are admitted and denied as QEMU's authz objects do it. Method: a table of authorizers and peers.
func TestAuthorizers(t *testing.T) {
	list := AuthzList{Rules: []AuthzRule{
		{Match: "CN=bad,O=Acme", Policy: AuthzDeny},
		{Match: "CN=*,O=Acme", Policy: AuthzAllow, Format: AuthzGlob},
		{Match: "CN=good,O=Other", Policy: AuthzAllow},
		{Match: "CN=x*", Policy: AuthzAllow},
	}}
	open := AuthzList{Policy: AuthzAllow, Rules: []AuthzRule{{Match: "CN=bad*", Policy: AuthzDeny, Format: AuthzGlob}}}
	cases := []struct {
		authorizer Authorizer
		name       string
		ok         bool
	}{
		{AuthzSimple{"CN=a"}, "CN=a", true},
		{AuthzSimple{"CN=a"}, "CN=A", false},
		{AuthzSimple{""}, "", false},
		{list, "CN=bad,O=Acme", false},
		{list, "CN=anyone/else,O=Acme", true},
		{list, "CN=good,O=Other", true},
		{list, "CN=other,O=Other", false},
		{list, "CN=xy", false},
		{list, "CN=x*", true},
		{list, "", false},
		{open, "CN=good", true},
		{open, "CN=bad1", false},
		{open, "", false},
		{AuthzList{}, "CN=a", false},
	}
	for _, c := range cases {
		err := c.authorizer.Authorize(&Peer{TLS: true, DN: c.name})
		require.Equal(t, c.ok, err == nil, "%+v %q: %v", c.authorizer, c.name, err)
		if !c.ok {
			require.ErrorIs(t, err, ErrDenied)
		}
	}
	require.ErrorContains(t, open.Authorize(&Peer{}), "no TLS")
	require.ErrorContains(t, open.Authorize(&Peer{TLS: true}), "verify-peer")
}

// Goal: globs match as fnmatch(3) without flags. Method: a table whose answers were taken from the C library's fnmatch in a
// UTF-8 locale, and a pattern that makes a naive matcher explode.
func TestGlobs(t *testing.T) {
	cases := []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "a/b", true}, {"**", "x", true}, {"?", "", false}, {"?", "/", true},
		{"a*c", "abbc", true}, {"a*c", "abcd", false}, {"*a*b", "xaxbxab", true}, {"[abc]", "b", true}, {"[!abc]", "b", false},
		{"[^abc]", "d", true}, {"[a-c]x", "bx", true}, {"[]a]", "]", true}, {"[!]a]", "]", false}, {"[a-]", "-", true},
		{"[", "[", true}, {"[a", "[a", true}, {"\\*", "*", true}, {"\\*", "a", false}, {"\\\\", "\\", true}, {"a\\", "a\\", false},
		{"[[:digit:]]*", "5x", true}, {"[[:alpha:]_]", "_", true}, {"[![:space:]]", " ", false}, {"\u00e4?", "\u00e4\u00f6", true},
		{"?", "\u00e4", true}, {"[\u00e4-\u00f6]", "\u00e5", true}, {"[\\]]", "]", true}, {"*.example", "a.b.example", true}, {"[*]", "*", true},
		{"[?]x", "yx", false}, {"CN=[a-z]*,O=*", "CN=host,O=x,y", true}, {"*\\", "a", false}, {"[z-a]", "b", false}, {"[[:nope:]]", "a", false}, {"[[:digit:]", "5", false},
		{"[[:alnum:]][[:xdigit:]][[:punct:]][[:upper:]][[:lower:]][[:blank:]]", "9F!Zz\t", true}, {"\xff", "\xfe", false},
	}
	for _, c := range cases {
		require.Equal(t, c.want, globMatch(c.pattern, c.s), "%q %q", c.pattern, c.s)
	}
	require.False(t, globMatch(strings.Repeat("a*", 1000)+"b", strings.Repeat("a", 10000)))
}

// Goal: a server's authorizer decides after TLS, and to who is not admitted the server is empty before (GEN-9, LST-4).
// Method: an admitted name, another name, and a client in clear, on a server where TLS is optional.
func TestServerAuthorization(t *testing.T) {
	a := newAuthority(t)
	o := handshakeOptions{
		tls: TLSOptional, credentials: serverTLS(t, a, true), authorizer: AuthzSimple{`O=Acme\, Inc.,CN=good`},
	}
	_, e, err := connectTLS(t, o, clientTLS(t, a, "good"))
	require.NoError(t, err)
	require.NoError(t, e.err)

	_, e, err = connectTLS(t, o, clientTLS(t, a, "bad"))
	require.Error(t, err)
	require.ErrorIs(t, e.err, ErrDenied)
	require.ErrorContains(t, e.err, "CN=bad")

	client, server := socketPair(t, "unix")
	end := startHandshake(t.Context(), server, o)
	c, err := NewClient(client)
	require.NoError(t, err)
	exports, err := c.List()
	require.NoError(t, err)
	require.Empty(t, exports)
	_, err = c.Go("disk")
	var refused *OptionError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, RepErrUnknown, refused.Reply)
	client.Close()
	require.ErrorIs(t, (<-end).err, ErrClientLeft)
}
