package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/raw"
	"nbd-dataplane/nbd"
)

// parseOwn reads a command line of our own door.
func parseOwn(args ...string) (*options, error) {
	o := defaultsOf(doorServe)
	cmd := &cobra.Command{Use: "serve", SilenceErrors: true, SilenceUsage: true, RunE: func(_ *cobra.Command, files []string) error {
		o.files = files
		return nil
	}}
	cmd.SetFlagErrorFunc(flagError)
	addFlags(cmd, o, optionsAt(doorServe))
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	return o, cmd.Execute()
}

// Goal: both doors read the same options in the same way, wherever they stand. Method: one command line in many spellings.
func TestSpellings(t *testing.T) {
	want := defaultsOf(doorQEMU)
	want.format, want.readOnly, want.exportName, want.shared, want.socket, want.files = "raw", true, "x y", 4, "/s", []string{"a", "-b"}
	ignored := cmp.Options{cmp.AllowUnexported(options{}, vsockAddress{}), cmpopts.IgnoreFields(options{}, "given", "calledAs", "door", "bind", "persistent", "stopTimeout")}
	for _, line := range [][]string{
		{"-f", "raw", "-r", "-x", "x y", "-e", "4", "-k", "/s", "a", "--", "-b"},
		{"-rfraw", "-xx y", "-e4", "-k/s", "a", "--", "-b"},
		{"a", "--format=raw", "--read-only", "--export-name=x y", "--shared=4", "--socket=/s", "--", "-b"},
		{"--format", "raw", "a", "--read-only", "--export-name", "x y", "--shared", "4", "--socket", "/s", "--", "-b"},
		{"-f", "vmdk", "a", "-f", "raw", "-rrx", "x y", "-e4", "-k", "/s", "--", "-b"},
	} {
		got, err := parseQEMU(append([]string{qemuName}, line...))
		require.NoError(t, err, line)
		require.Empty(t, cmp.Diff(want, got, ignored), line)
		got, err = parseOwn(line...)
		require.NoError(t, err, line)
		require.Empty(t, cmp.Diff(want, got, ignored), line)
	}
}

// Goal: the doors differ in the defaults that are documented, and only there. Method: the defaults are compared.
func TestDefaultsDiffer(t *testing.T) {
	own, qemu := defaultsOf(doorServe), defaultsOf(doorQEMU)
	require.Equal(t, []any{"127.0.0.1", 0, true}, []any{own.bind, own.shared, own.persistent})
	require.Equal(t, []any{"0.0.0.0", 1, false}, []any{qemu.bind, qemu.shared, qemu.persistent})
	require.Equal(t, []time.Duration{stopTimeoutDefault, 0}, []time.Duration{own.stopTimeout, qemu.stopTimeout})
	own.door, own.bind, own.shared, own.persistent, own.stopTimeout = qemu.door, qemu.bind, qemu.shared, qemu.persistent, 0
	require.Equal(t, qemu, own)
}

// Goal: the table of options is sound. Method: each row is looked at: names are unique, there is a help text and a setter,
// and qemu-nbd's door has all of qemu-nbd's options and no other.
func TestOptionTable(t *testing.T) {
	stock := run(t, sameDir(t), stockQEMU, "--help").Stdout
	seen := map[string]bool{}
	for _, row := range optionTable {
		require.False(t, seen[row.long], row.long)
		seen[row.long] = true
		if row.short != 0 {
			require.False(t, seen[string(row.short)], row.long)
			seen[string(row.short)] = true
		}
		require.NotEmpty(t, row.help)
		require.NotNil(t, row.set)
		if row.long == "tls-hostname" {
			continue // which the help of 7.2 forgets
		}
		require.Equal(t, row.knownAt(doorQEMU), strings.Contains(stock, "--"+row.long+"=") || strings.Contains(stock, "--"+row.long+" "), row.long)
	}
	for _, d := range []door{doorServe, doorQEMU} {
		var b bytes.Buffer
		writeOptions(&b, d)
		require.NotContains(t, b.String(), "%")
		for _, row := range optionsAt(d) {
			require.Contains(t, b.String(), "--"+row.long)
		}
	}
}

// Goal: names and files are told apart. Method: a table.
func TestSplitFile(t *testing.T) {
	o := defaultsOf(doorServe)
	for arg, want := range map[string][2]string{
		"disk.img": {"", "disk.img"}, "a=disk.img": {"a", "disk.img"}, "a=b=c": {"a", "b=c"}, "./a=b": {"", "./a=b"}, "/x/a=b": {"", "/x/a=b"},
		"=b": {"", "=b"}, "null-co://?size=1G": {"", "null-co://?size=1G"}, "n=null-co://?size=1G": {"n", "null-co://?size=1G"},
		`json:{"a":"b=c"}`: {"", `json:{"a":"b=c"}`},
	} {
		name, file := o.splitFile(arg)
		require.Equal(t, want, [2]string{name, file}, arg)
	}
}

// Goal: values go where they belong. Method: a command line with each of our own options.
func TestOwnValues(t *testing.T) {
	o, err := parseOwn("d.img", "--create=1G", "--vsock=3:1234", "--iothreads=2", "--poll-max-ns=0", "--workers=5", "--handshake-timeout=2.5", "--stop-timeout=90",
		"--max-connections=7", "--memory-limit=64M", "--export-memory-limit=32M", "--connection-memory-limit=16M", "--exit-last", "--log-level=warn",
		"--log-format=json", "--tls=on", "--tls-certificates=/pki", "--tls-verify-peer", "--cache=directsync", "--aio=native", "--discard=unmap", "--detect-zeroes=unmap", "-o1M", "--map=off")
	require.NoError(t, err)
	require.NoError(t, o.check())
	require.EqualValues(t, 1<<30, o.createBytes)
	require.Equal(t, vsockAddress{set: true, cid: 3, port: 1234}, o.vsock)
	require.Equal(t, []any{2, 5, 7}, []any{o.ioThreads, o.workers, o.connectionsMax})
	require.EqualValues(t, []any{int64(64 << 20), int64(32 << 20), int64(16 << 20)}, []any{o.memoryLimit, o.exportMemory, o.connectionMemory})
	require.Negative(t, o.pollMax)
	require.Equal(t, "2.5s", o.handshakeTimeout.String())
	require.Equal(t, "1m30s", o.stopTimeout.String())
	require.True(t, o.exitsAfterLast())
	require.EqualValues(t, 1<<20, o.offset)
	require.Equal(t, raw.Cache{Direct: true, Writethrough: true}, o.cache)
	require.Equal(t, []any{raw.AIONative, raw.DiscardUnmap, raw.DetectUnmap, raw.MapOff}, []any{o.aio, o.discard, o.detectZeroes, o.mapping})
}

// Goal: a value that makes no sense is refused with its option's name. Method: a table.
func TestOwnValuesRefused(t *testing.T) {
	for _, arg := range []string{
		"--vsock=", "--vsock=a", "--vsock=1:2:3", "--vsock=1:", "--iothreads=0", "--iothreads=x", "--poll-max-ns=-1", "--poll-max-ns=1e9",
		"--workers=-1", "--handshake-timeout=0", "--handshake-timeout=NaN", "--stop-timeout=-1", "--max-connections=0", "--memory-limit=1k", "--memory-limit=x",
		"--log-level=loud", "--log-format=xml", "--tls=maybe", "--tls-certificates=", "--create=x", "--create=-1", "--exit-last=no",
		"--offset=0x8000000000000000", "--offset=1_0", "--export-name=" + strings.Repeat("n", 4097), "--description=" + strings.Repeat("n", 4097),
	} {
		_, err := parseOwn("d.img", arg)
		name, _, _ := strings.Cut(arg, "=")
		require.ErrorContains(t, err, strings.TrimPrefix(name, "--"), arg)
		require.NotContains(t, err.Error(), "\n", arg)
	}
}

// Goal: objects mean what they mean to QEMU. Method: a table of those that can be had, in both notations.
func TestObjects(t *testing.T) {
	list := nbd.AuthzList{Rules: []nbd.AuthzRule{{Match: "CN=a*", Policy: nbd.AuthzAllow, Format: nbd.AuthzGlob}, {Match: "CN=b,O=c"}}}
	file := filepath.Join(t.TempDir(), "list.json")
	text := `{"policy":"deny","rules":[{"match":"CN=a*","policy":"allow","format":"glob"},{"match":"CN=b,O=c","policy":"deny"}]}`
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	password, long := filepath.Join(t.TempDir(), "password"), filepath.Join(t.TempDir(), "long")
	require.NoError(t, os.WriteFile(password, []byte("a\n"), 0o600))
	require.NoError(t, os.WriteFile(long, make([]byte, secretBytesMax+1), 0o600))
	key := func(id string) ([]byte, error) {
		if id != "k" {
			return nil, errors.New("there is none")
		}
		return []byte("0123456789abcdef0123456789ABCDEF"), nil
	}
	sealed := "secret,id=s,format=base64,keyid=k,iv=MDEyMzQ1Njc4OWFiY2RlZg==,data=" // echo -n ... | openssl enc -aes-256-cbc -K ... -iv ... | base64
	for in, want := range map[string]object{
		sealed + "2oRZRIsbd8ao9p7dXNxD9g==":                                     {id: "s", secret: []byte("sesame")},
		"secret,id=s,keyid=k,iv=MDEyMzQ1Njc4OWFiY2RlZg==,data=":                 {id: "s", secret: []byte{}},
		"secret,id=x,data=x,iv=AAAA":                                            {id: "x", secret: []byte("x")},
		"tls-creds-x509,id=t,endpoint=server,dir=/d":                            {id: "t", creds: &tlsObject{dir: "/d", verifyPeer: true}},
		"tls-creds-x509,id=t,dir=/d,verify-peer=off":                            {id: "t", creds: &tlsObject{dir: "/d", isClient: true}},
		`{"qom-type":"tls-creds-x509","id":"t","endpoint":"server","dir":"/d"}`: {id: "t", creds: &tlsObject{dir: "/d", verifyPeer: true}},
		"tls-creds-x509,id=t,endpoint=server,dir=/d,passwordid=s":               {id: "t", creds: &tlsObject{dir: "/d", verifyPeer: true, passwordID: "s"}},
		"secret,id=s,data=a,,b":                                                 {id: "s", secret: []byte("a,b")},
		"secret,id=s,data=":                                                     {id: "s", secret: []byte{}},
		"secret,id=s,format=base64,data=YQ==":                                   {id: "s", secret: []byte("a")},
		"secret,id=s,format=base64,data=YQ":                                     {id: "s", secret: []byte("a")},
		"secret,id=s,file=" + password:                                          {id: "s", secret: []byte("a\n")},
		"authz-simple,id=a,identity=CN=x,,O=y":                                  {id: "a", authz: nbd.AuthzSimple{Identity: "CN=x,O=y"}},
		"authz-list-file,id=a,refresh=off,filename=" + file:                     {id: "a", authz: list},
		"authz-list,id=a,rules.0.match=CN=a*,rules.0.policy=allow,rules.0.format=glob,rules.1.match=CN=b,,O=c,rules.1.policy=deny": {id: "a", authz: list},
		"authz-list,id=a,policy=allow": {id: "a", authz: nbd.AuthzList{Policy: nbd.AuthzAllow}},
	} {
		got, err := parseObject(in, key)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{
		"", "id=x", "nonsense,id=x", "tls-creds-psk,id=x,dir=/d", "tls-creds-anon,id=x", "secret_keyring,id=x,serial=2147483647",
		"secret,id=x", "secret,data=x", "secret,id=x,data=x,file=/dev/null", "secret,id=x,file=/none", "secret,id=x,file=/", "secret,id=x,file=" + long, "secret,id=x,data=x,keyid=y",
		"secret,id=x,data=x,keyid=k", "secret,id=x,data=x,keyid=k,iv=AAAA", "secret,id=x,data=x,keyid=k,iv=!", sealed + "YQ==", sealed + "v//POsqc95Jmh5yG/D2KFw==", "secret,id=x,data=x,loaded=on",
		"secret_keyring,id=x", "secret_keyring,id=x,serial=x", "secret_keyring,id=x,serial=4294967296", "secret_keyring,id=x,serial=1,loaded=on", "secret,id=x,data=x,format=hex", "secret,id=x,data=!,format=base64", "secret,id=x,data=x,other=y", "authz-pam,id=x", "tls-creds-x509,id=x", "tls-creds-x509,dir=/d",
		"tls-creds-x509,id=x,dir=/d,endpoint=middle", "tls-creds-x509,id=x,dir=/d,verify-peer=maybe", "tls-creds-x509,id=x,dir=/d,priority=NORMAL",
		"authz-simple,id=x", "authz-list,id=x,policy=perhaps", "authz-list,id=x,rules.0.match=a", "authz-list,id=x,rules.1.match=a,rules.1.policy=allow",
		"authz-list,id=x,rules.0.match=a,rules.0.policy=allow,rules.0.format=regex", "authz-list-file,id=x,filename=/none", "authz-list-file,id=x,filename=/dev/null,refresh=perhaps", "{",
	} {
		_, err := parseObject(in, key)
		require.Error(t, err, in)
	}
}

// Goal: formats are recognised where QEMU looks for them. Method: files with nothing but the magic.
func TestSniff(t *testing.T) {
	for _, m := range magics {
		content := make([]byte, 4096)
		at := m.at
		if at < 0 {
			at += int64(len(content))
		}
		copy(content[at:], m.bytes)
		require.Equal(t, m.format, sniffIn(bytes.NewReader(content), int64(len(content))), m.format)
		require.True(t, otherFormats[m.format] || m.format == formatQcow2)
	}
	for _, content := range []string{"", "Q", "QFI", strings.Repeat("\x00", 1024)} {
		require.Equal(t, "raw", sniffIn(strings.NewReader(content), int64(len(content))))
	}
	require.Equal(t, "raw", sniff("/nonexistent"))
	require.Equal(t, "raw", sniff("/dev/null"))
}

// Goal: no command line makes a parser panic or loop. Method: fuzzing of both doors with the words of the table.
func FuzzCommandLine(f *testing.F) {
	f.Add("-f raw --sh 3 -rk/s d.img -- -x")
	f.Add("--object authz-list,id=a,rules.0.match=x --fork= -")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Fields(line)
		for _, arg := range args {
			if strings.Contains(arg, "authz-list-file") {
				return // reads files
			}
		}
		if o, err := parseQEMU(append([]string{qemuName}, args...)); err == nil {
			_ = o.check()
		}
		if o, err := parseOwn(args...); err == nil {
			_ = o.check()
		}
	})
}

// Goal: the manual tells of every driver of blockdev-add. Method: each has its name in the first column of the table.
func TestDriversAreInTheManual(t *testing.T) {
	manual, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	for _, name := range driverNames() {
		require.Regexp(t, "(?m)^\\| [^|]*`"+name+"`[^|]*\\|", string(manual))
	}
}
