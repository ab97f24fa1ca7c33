package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// likeQEMU are commands with the arguments that qemu-storage-daemon's have, as far as the test below needs them.
// They do nothing.
func likeQEMU() []Command {
	return []Command{
		{Name: "nbd-server-start", Handler: ignoring[serverStart]()},
		{Name: "blockdev-add", Handler: ignoring[options]()},
		{Name: "block-export-add", Handler: ignoring[exportAdd]()},
		{Name: "block-export-del", Handler: ignoring[struct {
			ID   string `qmp:"id"`
			Mode string `qmp:"mode,optional,enum=safe|hard"`
		}]()},
		{Name: "block_resize", Handler: ignoring[struct {
			Device   *string `qmp:"device"`
			NodeName *string `qmp:"node-name"`
			Size     int64   `qmp:"size"`
		}]()},
		{Name: "blockdev-reopen", Handler: ignoring[struct {
			Options []options `qmp:"options"`
		}]()},
		{Name: "qom-set", Handler: ignoring[struct {
			Path     string `qmp:"path"`
			Property string `qmp:"property"`
			Value    Value  `qmp:"value"`
		}]()},
		{Name: "transaction", Handler: ignoring[struct {
			Actions    []action `qmp:"actions"`
			Properties *struct {
				Mode string `qmp:"completion-mode,optional,enum=individual|grouped"`
			} `qmp:"properties"`
		}]()},
	}
}

func ignoring[A any]() Handler {
	return With(func(context.Context, *Call, *A) (any, error) { return nil, nil })
}

type serverStart struct {
	Address        address `qmp:"addr"`
	Credentials    *string `qmp:"tls-creds"`
	MaxConnections *uint32 `qmp:"max-connections"`
}

// address is what QEMU calls a simple union: the branch is in a member of its own.
type address struct {
	Type string
	Unix *struct {
		Path string `qmp:"path"`
	}
}

func (a *address) DecodeQMP(v Value) error {
	var base struct {
		Type string `qmp:"type,enum=inet|unix|vsock|fd"`
	}
	rest, err := v.Take(&base)
	if err != nil {
		return err
	}
	var branch struct {
		Data struct {
			Path string `qmp:"path"`
		} `qmp:"data"`
	}
	a.Type = base.Type
	return rest.Decode(&branch)
}

type action struct{ Type string }

func (a *action) DecodeQMP(v Value) error {
	var base struct {
		Type string `qmp:"type,enum=abort|blockdev-snapshot"`
	}
	rest, err := v.Take(&base)
	if err != nil {
		return err
	}
	a.Type = base.Type
	if base.Type == "abort" {
		return rest.Decode(&struct {
			Data struct{} `qmp:"data"`
		}{})
	}
	return rest.Decode(&struct {
		Data struct {
			Node    string `qmp:"node"`
			Overlay string `qmp:"overlay"`
		} `qmp:"data"`
	}{})
}

type exportAdd struct {
	Type     string   `qmp:"type,enum=nbd"`
	ID       string   `qmp:"id"`
	NodeName string   `qmp:"node-name"`
	Writable *bool    `qmp:"writable"`
	Bitmaps  []bitmap `qmp:"bitmaps,optional"`
}

type bitmap struct{}

func (*bitmap) DecodeQMP(v Value) error {
	switch v.Kind() {
	case String:
		return nil
	case Object:
		return v.Decode(&struct {
			Node string `qmp:"node"`
			Name string `qmp:"name"`
		}{})
	}
	return v.WrongType("BlockDirtyBitmapOrStr")
}

// wrongInputs have to be answered by us as qemu-storage-daemon answers them.
var wrongInputs = []string{
	// What is no command.
	`{}`, `[]`, `"x"`, `1 `, `null `, `{"id":3}`, `{"arguments":{}}`, `{"execute":1}`, `{"execute":null,"id":1}`,
	`{"foo":1,"execute":"x"}`,
	`{"execute":"query-version","arguments":1}`, `{"execute":"query-version","arguments":null,"id":[]}`,
	`{"execute":"query-version","arguments":{"a":1}}`, `{"execute":"query-version","exec-oob":"x"}`,
	`{"exec-oob":"query-version"}`, `{"exec-oob":"nosuch"}`, `{"exec-oob":1}`, `{"execute":""}`, `{"execute":"n\u00e9 \"x\" "}`,
	`{"execute":"qmp_capabilities"}`, `{"execute":"qmp_capabilities","arguments":{"enable":["nosuch"]}}`, `{"execute":"quit","arguments":{"x":1}}`,

	// What is no JSON.
	`{"a":1,"a":2}`, `{"execute":}`, `{"execute" "x"}`, `{"a":1,}`, `{"a":1]`, `}`, `{}}`, `{a:1}`, `{"a":01}`,
	`{"a":-}`, `{"a":1.}`, `{"a":"\q"}`,
	`{"a":"\ud800"}`, `{"a":"\udc00"}`, `{"a":"\ud83dx"}`, `"\u12"`, `"\u12xy"`, `"\uffff"`,
	"\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"",
	"{\"a\":\"\x01\"}", "{\"a\":\"\xff\"}", "{\"a\":\"x\n\"}", "@@ @{}", "@\x01", "@,", "@:", "@\xff", "\x00\x00", "\xfe",
	`[1,]`, `[1 2]`, `[,]`, `{1:2}`, `{"a":1 "b":2}`, `{"a":[1,2}]`, `{"a":NaN}`, `{"a":+1}`, `{"a":.5}`, `0123,`, `0e1 `, `-01 `, `1.5.5 `, `1ex `, `1e+ `,
	`%`, `tru `, `true `, `{"a":1}}}`, `'\q'`, `{'a':'\'"'}`, `{"a":%d}`, `"abc` + "\n", `[[]]]]`, `{"a":{"b":]}}`,
	`:`, `,`, `{:}`, `{"a"}`, `{"a":}`, `[:]`, `{,}`, `{"a",1}`,

	// Arguments.
	`{"execute":"nbd-server-start"}`,
	`{"execute":"nbd-server-start","arguments":{"addr":1}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":null}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":{}}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":{"type":1}}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":{"type":"nosuch"}}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix"}}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{}}}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":1}}}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"x","y":1}}}}`,
	`{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","z":1,"data":{"path":"x"}}}}`,
	`{"execute":"nbd-server-start","arguments":{"bogus":1,"addr":{"type":"unix","data":{"path":"x"}}}}`,
	`{"execute":"nbd-server-start","arguments":{"max-connections":"1","addr":{"type":"unix","data":{"path":"x"}}}}`,
	`{"execute":"nbd-server-start","arguments":{"max-connections":1.5,"addr":{"type":"unix","data":{"path":"x"}}}}`,
	`{"execute":"nbd-server-start","arguments":{"max-connections":null,"addr":{"type":"unix","data":{"path":"x"}}}}`,
	`{"execute":"nbd-server-start","arguments":{"max-connections":-1,"addr":{"type":"unix","data":{"path":"x"}}}}`,
	`{"execute":"nbd-server-start","arguments":{"max-connections":4294967296,"addr":{"type":"unix","data":{"path":"x"}}}}`,
	`{"execute":"blockdev-add"}`,
	`{"execute":"blockdev-add","arguments":{"driver":"nosuch"}}`,
	`{"execute":"blockdev-add","arguments":{"driver":["raw"]}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","size":"1"}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","size":1.0}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","size":18446744073709551615}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":1}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","bogus":1}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","discard":"nosuch"}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","cache":1}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","cache":{"direct":"on"}}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"null-co","bogus":1,"cache":{"bogus":true}}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"raw"}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"raw","file":1}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"raw","file":null}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"raw","file":{}}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"raw","file":{"driver":"nosuch"}}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"raw","file":{"driver":"raw","file":false}}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"raw","file":{"driver":"null-co","size":"x"}}}`,
	`{"execute":"blockdev-add","arguments":{"driver":"raw","file":{"driver":"null-co","bogus":1}}}`,
	`{"execute":"block-export-add","arguments":{"type":"nosuch","id":"x"}}`,
	`{"execute":"block-export-add","arguments":{"type":"nbd","id":"x"}}`,
	`{"execute":"block-export-add","arguments":{"type":"nbd","id":"x","node-name":"y","writable":"on"}}`,
	`{"execute":"block-export-add","arguments":{"type":"nbd","id":"x","node-name":"y","bitmaps":[{"node":1,"name":"x"}]}}`,
	`{"execute":"block-export-add","arguments":{"type":"nbd","id":"x","node-name":"y","bitmaps":["x",[]]}}`,
	`{"execute":"block-export-del","arguments":{"id":"x","mode":"nosuch"}}`,
	`{"execute":"block-export-del","arguments":{"id":"x","mode":1}}`,
	`{"execute":"block_resize","arguments":{"node-name":"x","size":"1M"}}`,
	`{"execute":"block_resize","arguments":{"node-name":"x","size":9223372036854775808}}`,
	`{"execute":"qom-set","arguments":{"path":"/objects/x","property":"x"}}`,
	`{"execute":"blockdev-reopen","arguments":{"options":{}}}`,
	`{"execute":"blockdev-reopen","arguments":{"options":[1]}}`,
	`{"execute":"blockdev-reopen","arguments":{"options":[{"driver":"null-co"},{"driver":"null-co","node-name":1}]}}`,
	`{"execute":"transaction","arguments":{"actions":[{"type":"nosuch"}]}}`,
	`{"execute":"transaction","arguments":{"actions":[{"type":"abort","data":{}},{}]}}`,
	`{"execute":"transaction","arguments":{"actions":[{"type":"abort","data":{"x":1}}]}}`,
	`{"execute":"transaction","arguments":{"actions":[{"type":"blockdev-snapshot"}]}}`,
	`{"execute":"transaction","arguments":{"actions":[{"type":"blockdev-snapshot","data":{"node":1}}]}}`,
	`{"execute":"transaction","arguments":{"actions":[{"type":"blockdev-snapshot","data":{"node":"x"}}]}}`,
	`{"execute":"transaction","arguments":{"actions":[],"properties":{"completion-mode":"x"}}}`,
}

// Goal: programs that know QEMU's errors know ours. Method: qemu-storage-daemon and our server, which has commands with the same arguments,
// get the same wrong inputs, each on a connection of its own with a command behind it, and give the same answers byte for byte.
func TestErrorsAreQEMUs(t *testing.T) {
	theirs := filepath.Join(t.TempDir(), "qemu")
	daemon := exec.Command("qemu-storage-daemon", "--chardev", "socket,id=m,server=on,wait=on,path="+theirs, "--monitor", "m")
	require.NoError(t, daemon.Start())
	defer func() {
		require.NoError(t, daemon.Process.Kill())
		daemon.Wait()
	}()
	s := newStage()
	s.server = New(Options{Commands: likeQEMU(), Quit: func() {}})
	ours := s.listen(t)
	for _, input := range wrongInputs {
		want := answersTo(t, theirs, input)
		require.NotEmpty(t, want, "%q", input)
		require.Equal(t, want, answersTo(t, ours, input), "%q", input)
	}
}

// answersTo is all that is said up to the answer to a command of ours behind the input.
func answersTo(t *testing.T, path, input string) []string {
	t.Helper()
	var conn net.Conn
	require.Eventually(t, func() (isUp bool) {
		var err error
		conn, err = net.Dial("unix", path)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	const before, behind = `{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}`, `{"execute":"query-version","id":"last"}`
	_, err := conn.Write([]byte(before + input + "\n" + behind))
	require.NoError(t, err)
	var answers []string
	lines := bufio.NewReader(conn)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		require.NoError(t, err, "%q is answered by %q", input, answers)
		var last struct{ ID any }
		require.NoError(t, json.Unmarshal([]byte(line), &last))
		switch {
		case last.ID == "last":
			return answers
		case n >= 2: // behind the greeting and the negotiation
			answers = append(answers, line)
		}
	}
}
