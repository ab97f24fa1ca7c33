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
			made := run(t, dir, "/bin/sh", "-c", "qemu-img create -q -f qcow2 a.qcow2 1M && truncate -s 1M notq")
			require.Zero(t, made.Status, made)
			return run(t, dir, program, strings.Fields(line)...)
		}
		want := result(stockQSD)
		require.Equal(t, 1, want.Status, line)
		require.Equal(t, want, result(ours), line)
	}
}
