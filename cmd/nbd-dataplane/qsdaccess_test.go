package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// accessScript is sent to qemu-storage-daemon and to ours; its lines are those of snapshotScript, and "nodes": which are read-only.
const accessScript = `
	sh for i in a b c d e g; do qemu-img create -q -f qcow2 $i.qcow2 1M; done; qemu-img create -q -f raw r.img 1M
	sh for i in a b c d r.img g r2; do qemu-img create -q -f qcow2 over-$i.qcow2 1M; done; qemu-img create -q -f raw r2.img 1M
	sh qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 n1.qcow2 && cp n1.qcow2 n2.qcow2 && cp n1.qcow2 n3.qcow2
	nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}
	blockdev-add {"driver":"qcow2","node-name":"a","file":{"driver":"file","filename":"DIR/a.qcow2"}}
	blockdev-add {"driver":"file","node-name":"fb","filename":"DIR/b.qcow2"}
	blockdev-add {"driver":"qcow2","node-name":"b","file":"fb"}
	blockdev-add {"driver":"qcow2","node-name":"c","read-only":true,"file":{"driver":"file","filename":"DIR/c.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"d","file":{"driver":"file","filename":"DIR/d.qcow2"}}
	blockdev-add {"driver":"raw","node-name":"r","file":{"driver":"file","filename":"DIR/r.img"}}
	blockdev-add {"driver":"file","node-name":"r2","filename":"DIR/r2.img"}
	blockdev-add {"driver":"qcow2","node-name":"g","file":{"driver":"file","filename":"DIR/g.qcow2"}}
	blockdev-add {"driver":"copy-on-read","node-name":"cor","file":"g"}
	blockdev-add {"driver":"qcow2","node-name":"oa","backing":null,"file":{"driver":"file","filename":"DIR/over-a.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"ob","backing":null,"file":{"driver":"file","filename":"DIR/over-b.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"oc","backing":null,"file":{"driver":"file","filename":"DIR/over-c.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"or","backing":null,"file":{"driver":"file","filename":"DIR/over-r.img.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"or2","backing":null,"file":{"driver":"file","filename":"DIR/over-r2.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"og","backing":null,"file":{"driver":"file","filename":"DIR/over-g.qcow2"}}
	block-dirty-bitmap-add {"node":"a","name":"kept","persistent":true}
	block-dirty-bitmap-add {"node":"a","name":"lost"}
	block-export-add {"type":"nbd","id":"a","node-name":"a","writable":true}
	block-export-add {"type":"nbd","id":"b","node-name":"b","writable":true}
	block-export-add {"type":"nbd","id":"d","node-name":"d"}
	block-export-add {"type":"nbd","id":"r","node-name":"r","writable":true}
	block-export-add {"type":"nbd","id":"cor","node-name":"cor","writable":true}
	sh for i in a b r cor; do qemu-io -f raw -c 'write -q -P 1 0 64k' "nbd+unix:///$i?socket=s"; done
	nodes
	transaction {"actions":[{"type":"blockdev-snapshot","data":{"node":"a","overlay":"oa"}},{"type":"abort","data":{}}]}
	nodes
	sh qemu-io -f raw -c 'write -q -P 2 0 64k' 'nbd+unix:///a?socket=s'; qemu-io -r -f qcow2 -c 'read -q 0 1' a.qcow2
	blockdev-snapshot {"node":"a","overlay":"oa"}
	transaction {"actions":[{"type":"blockdev-snapshot","data":{"node":"b","overlay":"ob"}},{"type":"blockdev-snapshot","data":{"node":"c","overlay":"oc"}}]}
	blockdev-snapshot {"node":"r","overlay":"or"}
	blockdev-snapshot {"node":"r2","overlay":"or2"}
	blockdev-snapshot {"node":"cor","overlay":"og"}
	nodes
	bitmaps
	sh for i in a b c g; do qemu-io -r -f qcow2 -c 'read -q 0 1' $i.qcow2; qemu-io -f qcow2 -c 'read -q 0 1' $i.qcow2; done
	sh qemu-io -r -f raw -c 'read -q 0 1' r.img; qemu-io -r -f raw -c 'read -q 0 1' r2.img; qemu-img check a.qcow2; qemu-img check b.qcow2
	sh for i in a b r cor; do qemu-io -f raw -c 'read -q -P 1 4k 4k' -c 'write -q -P 3 0 4k' -c flush "nbd+unix:///$i?socket=s"; done
	blockdev-reopen {"options":[{"driver":"qcow2","node-name":"a","file":{"driver":"file","filename":"DIR/a.qcow2"}}]}
	blockdev-reopen {"options":[{"driver":"qcow2","node-name":"b","file":"fb"}]}
	nodes
	sh for i in a b; do qemu-io -r -f qcow2 -c 'read -q 0 1' $i.qcow2; done
	blockdev-snapshot-sync {"node-name":"d","snapshot-file":"DIR/od.qcow2","snapshot-node-name":"od"}
	nodes
	sh qemu-io -r -f qcow2 -c 'read -q 0 1' d.qcow2
	blockdev-add {"driver":"qcow2","node-name":"n1","read-only":true,"file":{"driver":"file","filename":"DIR/n1.qcow2"},"backing":"a"}
	blockdev-add {"driver":"file","node-name":"fn2","filename":"DIR/n2.qcow2"}
	blockdev-add {"driver":"qcow2","node-name":"n2","read-only":true,"file":"fn2","backing":"a"}
	blockdev-add {"driver":"qcow2","node-name":"n3","read-only":true,"file":{"driver":"file","filename":"DIR/n3.qcow2","read-only":true},"backing":"a"}
	change-backing-file {"device":"n1","image-node-name":"n1","backing-file":"one"}
	change-backing-file {"device":"n2","image-node-name":"n2","backing-file":"two"}
	change-backing-file {"device":"n3","image-node-name":"n3","backing-file":"three"}
	nodes
	sh for i in n1 n2 n3; do qemu-img info $i.qcow2 | grep -E '^back|lock'; qemu-io -r -f qcow2 -c 'read -q 0 1' $i.qcow2; done
`

// readOnlyNodes are the nodes with names of their own, and which are read-only.
func (s *steered) readOnlyNodes() string {
	s.t.Helper()
	var nodes []struct {
		Name     string `json:"node-name"`
		ReadOnly bool   `json:"ro"`
	}
	require.NoError(s.t, json.Unmarshal([]byte(s.do("query-named-block-nodes")), &nodes))
	var said []string
	for _, n := range nodes {
		if !strings.HasPrefix(n.Name, "#") {
			said = append(said, fmt.Sprintf("%s:%v", n.Name, n.ReadOnly))
		}
	}
	slices.Sort(said)
	return strings.Join(said, " ")
}

// moreOfReadOnly is what ours says about a node that cannot be written to besides what QEMU does.
var moreOfReadOnly = regexp.MustCompile(`(Block node is read-only): node '.*' is used for writing by node '\w+'`)

// Goal: an image that gets an overlay becomes read-only, and others may read it then, as with qemu-storage-daemon: images whose file is described with
// them or a node of its own, formats and files, alone and in a transaction that stands or does not; clients go on; it can be made writable again. So does
// change-backing-file with an image that is read-only. Method: one script is sent to both, and the tools of QEMU look at the images meanwhile.
func TestAccessAsQEMU(t *testing.T) {
	look := func(program string) string {
		s := steer(t, program)
		var b strings.Builder
		for line := range strings.Lines(accessScript) {
			line = strings.TrimSpace(line)
			var said string
			switch command, isShell := strings.CutPrefix(line, "sh "); {
			case isShell:
				said = fmt.Sprintf("%+v", run(t, s.dir, "/bin/sh", "-c", command))
			case line == "nodes":
				said = s.readOnlyNodes()
			case line == "bitmaps":
				said = bitmapsOnly(s.t, s.do("query-named-block-nodes"))
			case line != "":
				said = moreOfReadOnly.ReplaceAllString(s.do(line), "$1")
			}
			fmt.Fprintf(&b, "%s\n\t%s\n", line, said)
		}
		out := s.end(syscall.SIGTERM)
		require.Zero(t, out.Status, "%+v", out)
		fmt.Fprintf(&b, "%+v\n", run(t, s.dir, "/bin/sh", "-c", "for i in a b c d; do qemu-img check -q $i.qcow2; qemu-img info $i.qcow2 | grep -A6 bitmaps; done"))
		return b.String()
	}
	want := look(stockQSD)
	require.Equal(t, want, look(asProgram(t, qsdName)))
}

// Goal: a bitmap that is to be kept of an image without the right to write is given up with a warning, as by qemu-storage-daemon; if the image is writable in the
// end it is kept. Method: both daemons; what they print.
func TestBitmapsThatCannotBeKept(t *testing.T) {
	look := func(program string) outcome {
		s := steer(t, program)
		require.Zero(t, run(t, s.dir, "/bin/sh", "-c", "for i in a b; do qemu-img create -q -f qcow2 $i.qcow2 1M; done").Status)
		for _, name := range []string{"a", "b"} {
			s.ok(`blockdev-add {"driver":"qcow2","node-name":"`+name+`","read-only":true,"file":{"driver":"file","filename":"DIR/`+name+`.qcow2"}}`,
				`block-dirty-bitmap-add {"node":"`+name+`","name":"x","persistent":true}`, `block-dirty-bitmap-add {"node":"`+name+`","name":"y"}`)
		}
		s.ok(`blockdev-reopen {"options":[{"driver":"qcow2","node-name":"b","file":{"driver":"file","filename":"DIR/b.qcow2"}}]}`,
			`blockdev-del {"node-name":"a"}`, `blockdev-del {"node-name":"b"}`)
		require.Contains(t, run(t, s.dir, "qemu-img", "info", "b.qcow2").Stdout, "name: x")
		return s.end(syscall.SIGTERM)
	}
	want := look(stockQSD)
	require.Contains(t, want.Stderr, "Lost persistent bitmaps")
	require.Equal(t, want, look(asProgram(t, qsdName)))
}

// Goal: an image that was not closed is repaired when its node is reopened for writing, and not written to otherwise: nothing of it is lost, which QEMU, that
// writes to it as it is, does not achieve. One with an entry that leads between two clusters is used until somebody wants that, as with QEMU; one with an entry that
// leads behind the end of the file, where others will be, is not written to, opened or reopened. Method: images of which the writer was killed, and whose
// L2 table was spoiled; a client reads and writes, qemu-io and qemu-img look at what is left.
func TestUnclosedImagesAreRepairedByReopen(t *testing.T) {
	s := steer(t, asProgram(t, qsdName))
	shell := func(command string) string { return fmt.Sprintf("%+v", run(t, s.dir, "/bin/sh", "-c", command)) }
	shell("qemu-img create -q -f qcow2 -o lazy_refcounts=on a.qcow2 4M; qemu-io -f qcow2 -c 'write -q -P 7 0 1M' -c flush -c 'sigraise 9' a.qcow2")
	for name, entry := range map[string]string{"b": `\200\000\000\000\000\005\002\000`, "c": `\200\000\000\000\000\177\000\000`} {
		shell("cp a.qcow2 " + name + ".qcow2; printf '" + entry + "' | dd of=" + name + ".qcow2 bs=1 seek=262144 conv=notrunc; cp " + name + ".qcow2 " + name + "2.qcow2")
	}
	require.Contains(t, shell("qemu-img check a.qcow2; qemu-img check b.qcow2"), "L2 entry corrupted")
	s.ok(`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`)
	for _, name := range []string{"a", "b", "c"} {
		s.ok(`blockdev-add {"driver":"qcow2","node-name":"` + name + `","read-only":true,"file":{"driver":"file","filename":"DIR/` + name + `.qcow2"}}`)
	}
	const refused = "GenericError: Could not repair dirty image: 1 errors are left that cannot be repaired"
	for name, want := range map[string]string{"a": "{}", "b": "{}", "c": refused} {
		require.Equal(t, want, s.do(`blockdev-reopen {"options":[{"driver":"qcow2","node-name":"`+name+`","file":{"driver":"file","filename":"DIR/`+name+`.qcow2"}}]}`))
	}
	s.ok(`blockdev-add {"driver":"qcow2","node-name":"b2","file":{"driver":"file","filename":"DIR/b2.qcow2"}}`)
	require.Equal(t, refused, s.do(`blockdev-add {"driver":"qcow2","node-name":"c2","file":{"driver":"file","filename":"DIR/c2.qcow2"}}`))
	require.Equal(t, "a:false b2:false b:false c:true", s.readOnlyNodes())
	for _, name := range []string{"a", "b", "c"} {
		s.ok(`block-export-add {"type":"nbd","id":"` + name + `","node-name":"` + name + `","writable":` + fmt.Sprint(name != "c") + `}`)
	}
	const fine = "{Status:0 Stdout: Stderr:}"
	write := "qemu-io -f raw -c 'write -q -P 9 2M 1M' -c flush -c 'read -q -P 7 64k 960k' -c 'read -q -P 9 2M 1M' 'nbd+unix:///%s?socket=s'"
	require.Equal(t, fine, shell(fmt.Sprintf(write, "a")))
	require.Equal(t, fine, shell(fmt.Sprintf(write, "b")))
	require.Equal(t, fine, shell("qemu-io -r -f raw -c 'read -q -P 7 64k 960k' 'nbd+unix:///c?socket=s'"))
	require.Contains(t, shell("qemu-io -f raw -c 'write -q 0 64k' 'nbd+unix:///b?socket=s'"), "Input/output error")
	require.Contains(t, shell("qemu-io -r -f raw -c 'read -q 64k 64k' 'nbd+unix:///b?socket=s'"), "Status:1")
	require.Contains(t, s.end(syscall.SIGTERM).Stderr, "flush node b before closing: no medium found")
	require.Equal(t, fine, shell("qemu-img check -q a.qcow2 && qemu-io -r -f qcow2 -c 'read -q -P 7 0 1M' -c 'read -q -P 9 2M 1M' a.qcow2"))
	require.Equal(t, fine, shell("qemu-io -r -f qcow2 -c 'read -q -P 7 64k 960k' -c 'read -q -P 9 2M 1M' b.qcow2"))
	shell("qemu-img check -q -r all b.qcow2")
	require.Equal(t, fine, shell("qemu-io -r -f qcow2 -c 'read -q -P 7 64k 960k' -c 'read -q -P 9 2M 1M' b.qcow2"))
}
