package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// nestedMistakes are command lines with a mistake in something that stands on a file, or below an image; IMAGE is a qcow2 image.
var nestedMistakes = []string{
	"--blockdev qcow2,node-name=q,file.driver=file,file.filename=nope",
	"--blockdev qcow2,node-name=q,file.driver=file,file.filename=notq",
	"--blockdev qcow2,node-name=q,file.driver=nosuch,file.filename=notq",
	"--blockdev qcow2,node-name=q,file=missing",
	"--blockdev qcow2,IMAGE,bogus=1", "--blockdev qcow2,IMAGE,file.bogus=1", "--blockdev qcow2,IMAGE,l2-cache-size=x",
	"--blockdev qcow2,IMAGE,backing=nobacking",
	"--blockdev qcow2,IMAGE,backing.driver=file,backing.filename=nope",
	"--blockdev qcow2,IMAGE,backing.driver=qcow2,backing.file.driver=file,backing.file.filename=notq",
	"--blockdev qcow2,IMAGE,backing.driver=qcow2,backing.file.driver=file,backing.file.filename=nope",
	"--blockdev qcow2,IMAGE,backing.driver=qcow2,backing.file.driver=file,backing.file.filename=a.qcow2,backing.backing=zz",
	"--blockdev qcow2,IMAGE,backing.driver=raw,backing.size=100,backing.file.driver=file,backing.file.filename=notq",
	"--blockdev qcow2,IMAGE,backing.locking=7", "--blockdev qcow2,IMAGE,backing.driver=file", "--blockdev qcow2,IMAGE,backing.driver=nosuch", "--blockdev qcow2,IMAGE,backing.driver=raw",
	"--blockdev qcow2,IMAGE,backing.driver=file,backing.filename=notq,backing.locking=7", "--blockdev qcow2,IMAGE,backing.driver=file,backing.filename=notq,backing.bogus=7",
	"--blockdev qcow2,IMAGE,backing.driver=file,backing.filename=notq,backing.discard=x", "--blockdev qcow2,IMAGE,backing.driver=file,backing.filename=notq,backing.cache.direct=x",
	"--blockdev qcow2,IMAGE,backing.driver=file,backing.filename=notq,backing.node-name=1x", "--blockdev qcow2,IMAGE,backing.driver=file,backing.filename=notq,backing.node-name=q",
	"--blockdev qcow2,node-name=1x,file.driver=file,file.filename=a.qcow2,backing.driver=file,backing.filename=notq,backing.node-name=2x",
	"--blockdev qcow2,node-name=1x,file.driver=file,file.filename=a.qcow2,file.node-name=2x", "--blockdev qcow2,IMAGE,file.node-name=q",
	"--blockdev qcow2,IMAGE,file.node-name=f,backing.driver=file,backing.filename=notq,backing.node-name=f",
	"--blockdev qcow2,IMAGE,backing.driver=qcow2,backing.file.driver=file,backing.file.filename=b.qcow2,backing.overlap-check=much",
	"--blockdev qcow2,IMAGE,backing.driver=qcow2,backing.file.driver=file,backing.file.filename=b.qcow2,backing.backing.driver=file,backing.backing.bogus=1",
	`--blockdev {"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"a.qcow2"},"backing":7}`,
	`--blockdev {"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"a.qcow2"},"backing":{"driver":"file","filename":"notq","locking":7}}`,
	"--blockdev raw,node-name=q,file.driver=qcow2,file.file.driver=file,file.file.filename=a.qcow2,file.backing.driver=file,file.backing.locking=7",
	"--blockdev qcow2,IMAGE,data-file=zz", "--blockdev qcow2,IMAGE,data-file.driver=file,data-file.filename=notq",
	`--blockdev {"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"a.qcow2"},"backing":{"driver":"file","filename":"nope"}}`,
	"--blockdev raw,node-name=q,file.driver=file,file.filename=notq,offset=2M",
	"--blockdev raw,node-name=q,file.driver=qcow2,file.file.driver=file,file.file.filename=notq",
	"--blockdev copy-on-read,node-name=q,file.driver=qcow2,file.file.driver=file,file.file.filename=a.qcow2,file.backing=zz",
	"--blockdev copy-on-read,node-name=q,file.driver=file,file.filename=nope",
	"--blockdev compress,node-name=q,file.driver=file,file.filename=notq", "--blockdev compress,node-name=q,file.driver=qcow2,file.file.driver=file,file.file.filename=notq",
	"--blockdev compress,node-name=q,file.driver=compress,file.file.driver=qcow2,file.file.file.driver=file,file.file.file.filename=a.qcow2",
	"--blockdev compress,node-name=q", "--blockdev qcow2,IMAGE --blockdev compress,node-name=c,file=q,bogus=1",
	"--blockdev blkdebug,node-name=q,image.driver=qcow2,image.file.driver=file,image.file.filename=a.qcow2,image.backing.driver=file,image.backing.filename=nope",
	"--blockdev throttle,node-name=q,file.driver=null-co,throttle-group=g",
	"--blockdev null-co,node-name=n --nbd-server addr.type=unix,addr.path=nodir/s",
	"--nbd-server addr.type=unix,addr.path=s,tls-creds=zz", "--nbd-server addr.type=fd,addr.str=0", "--nbd-server addr.type=fd,addr.str=77",
	"--object secret,id=s,file=nope", "--object tls-creds-x509,id=t,dir=nodir,endpoint=server", "--object throttle-group,id=t,limits.bogus=5",
}

// Goal: a mistake inside of what a node stands on is told as by qemu-storage-daemon, with all that is said around it. Method: both programs in directories alike, in
// which there is an image, and a file that is none.
func TestQSDNestedMistakes(t *testing.T) {
	ours := asProgram(t, qsdName)
	for _, line := range nestedMistakes {
		line = strings.ReplaceAll(line, "IMAGE", "node-name=q,file.driver=file,file.filename=a.qcow2")
		result := func(program string) outcome {
			dir := sameDir(t)
			made := run(t, dir, "/bin/sh", "-c", "qemu-img create -q -f qcow2 a.qcow2 1M && cp a.qcow2 b.qcow2 && truncate -s 1M notq")
			require.Zero(t, made.Status, made)
			return run(t, dir, program, strings.Fields(line)...)
		}
		want := result(stockQSD)
		require.Equal(t, 1, want.Status, line)
		require.Equal(t, want, result(ours), line)
	}
}

// Goal: what is wrong in the form of a backing file that an image names is told as found while that was opened: nobody has written it with the others. Method: an
// image that names one by JSON with a driver that there is not.
func TestQSDNamedBackingMistake(t *testing.T) {
	dir := sameDir(t)
	made := run(t, dir, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", `json:{"driver":"nosuch"}`, "a.qcow2", "1M")
	require.Zero(t, made.Status, made)
	got := run(t, dir, asProgram(t, qsdName), "--blockdev", "qcow2,node-name=q,file.driver=file,file.filename=a.qcow2")
	require.Equal(t, 1, got.Status, got)
	require.Contains(t, got.Stderr, ": Could not open backing file: Parameter 'driver' does not accept value 'nosuch'")
}
