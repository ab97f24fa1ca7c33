package qmp

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// tape is a transport that has all its input and takes any output.
type tape struct {
	io.Reader
	bytes.Buffer
}

func (t *tape) Read(p []byte) (int, error)  { return t.Reader.Read(p) }
func (t *tape) Write(p []byte) (int, error) { return t.Buffer.Write(p) }
func (t *tape) Close() error                { return nil }

// Goal: no input makes the server crash, hang, or hold more than its bounds. Method: arbitrary bytes as the input of a monitor that has
// negotiated, with commands of every kind of argument; every line of the output must be JSON, there is an
// answer for each value at most, and what the stream holds stays within its bounds.
func FuzzMonitor(f *testing.F) {
	for _, seed := range []string{
		`{"execute":"echo","id":{"a":[1,-2.5e3,null,true,"\u00e9\ud83d\ude00"]}}`,
		`{'execute':'decode','arguments':{'int':1,"list":[1,2],"nodes":[{"driver":"raw","file":{"driver":"null-co"}}]}}`,
		`{"execute":"decode","arguments":{"uint":-1,"thread":null}}@@{"exec-oob":"echo"}`,
		`{"execute":"query-commands"}{"execute":"nosuch"}[[[[}}}}]]]]"abc` + "\n\xff\x00\xfe",
		strings.Repeat("[", nestingMax+2) + strings.Repeat("]", nestingMax+2),
		`{"execute":"quit"}` + strings.Repeat(" ", 100) + `17 `,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		s := New(Options{Commands: []Command{
			{Name: "echo", OOB: true, Handler: func(_ context.Context, call *Call) (any, error) { return call.Arguments.Raw(), nil }},
			{Name: "decode", Handler: With(func(_ context.Context, _ *Call, args *everything) (any, error) { return args.Raw, nil })},
		}, Quit: func() {}})
		hello := strings.NewReader(`{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}`)
		transport := &tape{Reader: io.MultiReader(hello, bytes.NewReader(input))}
		if err := s.ServeConn(transport, Monitor{}); err != nil {
			t.Fatal(err)
		}
		checkOutput(t, transport.Bytes(), len(input))
		checkStream(t, input)
	})
}

func checkOutput(t *testing.T, output []byte, inputBytes int) {
	t.Helper()
	lines := bytes.Split(bytes.TrimSuffix(output, []byte("\r\n")), []byte("\r\n"))
	if len(lines) < 2 || len(lines) > 2+inputBytes {
		t.Fatalf("%d lines for %d bytes", len(lines), inputBytes)
	}
	for _, line := range lines {
		if !json.Valid(line) {
			t.Fatalf("not JSON: %q", line)
		}
	}
}

// checkStream holds that it does not matter how the input is split, and the bounds on what is kept.
func checkStream(t *testing.T, input []byte) {
	t.Helper()
	var whole, split []string
	s := &stream{emit: func(n node, err error) { whole = append(whole, told(t, n, err)) }}
	s.feed(input)
	if len(s.text) > commandBytesMax || len(s.tokens) > commandTokensMax {
		t.Fatalf("%d bytes and %d tokens are kept", len(s.text), len(s.tokens))
	}
	s = &stream{emit: func(n node, err error) { split = append(split, told(t, n, err)) }}
	for n := range input {
		s.feed(input[n : n+1])
	}
	if strings.Join(whole, "\n") != strings.Join(split, "\n") {
		t.Fatalf("%q and, byte by byte, %q", whole, split)
	}
}

// told is a value or an error; of a value what we write must be read as the same again.
func told(t *testing.T, n node, err error) string {
	t.Helper()
	if err != nil {
		return err.Error()
	}
	text := string(appendCompact(nil, n))
	if again, err := ParseValue([]byte(text)); err != nil || string(again.Raw()) != text {
		t.Fatalf("%q is read as %q, %v", text, again.Raw(), err)
	}
	return text
}
