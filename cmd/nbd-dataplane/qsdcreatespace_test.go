package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
)

// dataFileRows are the options of images that blockdev-create makes in a file, besides driver, file and a size of 1 MiB.
var dataFileRows = []string{
	`"data-file":"d"`,
	`"data-file":"d","data-file-raw":true`,
	`"data-file":"d","data-file-raw":false,"backing-file":"x.img","backing-fmt":"raw"`,
	`"data-file":{"driver":"raw","file":{"driver":"file","filename":"DIR/inline.img"}}`,
	`"data-file":"over"`,
	`"data-file":"over","preallocation":"falloc","size":1572864`,
	`"data-file":"d","preallocation":"metadata"`,
	`"data-file":"d","preallocation":"falloc","size":2097152`,
	`"data-file":"d","preallocation":"full","size":3145728`,
	`"data-file":"d","preallocation":"full","size":1048576`,
	`"data-file":"d","size":65536`,
	`"data-file":"full","data-file-raw":true,"preallocation":"falloc","size":4194304`,
	`"data-file":"full","size":2097152`,
	`"data-file":"d","lazy-refcounts":true,"compression-type":"zstd","extended-l2":true`,
	`"preallocation":"falloc"`,
	`"preallocation":"full"`,
	`"preallocation":"metadata"`,
	`"preallocation":"falloc","backing-file":"x.img","backing-fmt":"raw","extended-l2":true`,
	`"preallocation":"falloc","cluster-size":2097152,"size":6291456`,
	`"backing-file":"","backing-fmt":"raw"`,
	`"backing-file":"y","backing-fmt":"vvfat"`,
	// What is refused.
	`"data-file-raw":true`,
	`"data-file":"nope"`,
	`"data-file":"ro"`,
	`"data-file":5`,
	`"data-file":null`,
	`"data-file-raw":7,"data-file":"d"`,
	`"data-file":{"driver":"file","filename":"DIR/no/such"}`,
	`"data-file":"d","version":"v2"`,
	`"data-file":"d","data-file-raw":true,"backing-file":"x.img","backing-fmt":"raw"`,
	`"preallocation":"falloc","backing-file":"x.img","backing-fmt":"raw"`,
	`"preallocation":"bogus"`,
	`"backing-file":"y","backing-fmt":"bogus"`,
	`"backing-file":"y","backing-fmt":""`,
	`"size":-512`,
	`"size":-1`,
	`"size":4611686018427387904`,
	`"size":9223372036854775296`,
	`"size":35184372088832,"cluster-size":512,"preallocation":"metadata"`,
	`"backing-file":"` + strings.Repeat("y", 1024) + `"`,
	`"refcount-bits":0`,
	`"refcount-bits":1099511627776`,
	`"cluster-size":-5`,
	`"version":"v2","compression-type":"zstd"`,
	`"version":"v2","extended-l2":true`,
	`"extended-l2":true,"cluster-size":8192`,
}

// spaceLook shows what was made: an image, and the files that may have its data, with whether these have the space that was asked for.
const spaceLook = `for i in N d full inline; do
	qemu-img info -U $i.img 2>&1 | grep -v 'disk size'
	[ $i != N ] || qemu-img map -U --output=json $i.img 2>&1 | grep -o '"start.*data.[^,}]*' | md5sum
	stat -c '%s %b' $i.img | { read size blocks; [ $i = N ] && size= small=$((blocks < 2000)) || small=$((blocks * 512 * 2 < size)); echo $size $small; }
	[ $i = N ] || md5sum <$i.img
done
qemu-img check -U N.img 2>&1 | grep -v 'end offset'`

// Goal: blockdev-create puts the data of an image into another node, sets space apart in the node below, and refuses what cannot be, as qemu-storage-daemon
// does. Method: each row is sent to both; qemu-img and stat tell what is there afterwards.
func TestCreateSpaceAsQEMU(t *testing.T) {
	look := func(program string) (said []string) {
		s := steer(t, program)
		run(t, s.dir, "/bin/sh", "-c", "touch d.img inline.img; yes | head -c 3M >full.img; truncate -s 1M ro.img")
		for _, node := range []string{`"d"`, `"full"`, `"ro","read-only":true`} {
			name, _, _ := strings.Cut(strings.Trim(node, `"`), `"`)
			s.do(`blockdev-add {"driver":"file","filename":"DIR/` + name + `.img","node-name":` + node + `}`)
		}
		s.do(`blockdev-add {"driver":"raw","file":"d","node-name":"over"}`)
		for n, row := range dataFileRows {
			name := fmt.Sprint(n)
			run(t, s.dir, "/bin/touch", name+".img")
			options := `"driver":"qcow2","file":{"driver":"file","filename":"DIR/` + name + `.img"},` + row
			if !strings.Contains(row, `"size"`) {
				options += `,"size":1048576`
			}
			got := s.do(`blockdev-create {"job-id":"j","options":{` + options + `}}`)
			if !strings.Contains(got, "Error: ") {
				for !strings.Contains(got, "concluded") {
					got = s.do("await JOB_STATUS_CHANGE")
				}
				got = s.do("query-jobs")
				s.do(`job-dismiss {"id":"j"}`)
				s.do("await JOB_STATUS_CHANGE")
			}
			said = append(said, row+"\n\t"+got)
			if strings.Contains(got, "concluded") && !strings.Contains(got, "error") {
				said = append(said, run(t, s.dir, "/bin/sh", "-c", strings.ReplaceAll(spaceLook, "N", name)).Stdout)
			}
		}
		require.Zero(t, s.end(syscall.SIGTERM).Status)
		return said
	}
	want := look(stockQSD)
	require.Equal(t, want, look(asProgram(t, qsdName)))
}

// Goal: over NFS no space can be set apart, which is said before anything is changed; zeroes are written, and the data of an image may lie there. Method: a
// daemon on our scripted server.
func TestCreateSpaceOnNFS(t *testing.T) {
	server, _ := onNFS(t)
	s := steer(t, asProgram(t, qsdName))
	for _, name := range []string{"top", "data"} {
		server.Put("/export/"+name, nfstest.File{SizeBytes: 512})
		s.ok(fmt.Sprintf(`blockdev-add {"driver":"nfs","node-name":%q,"server":{"type":"inet","host":%q},"path":"/export/%s","nfsport":%d,"mountport":%d}`,
			name, server.Address(), name, server.NFSPort(), server.MountPort()))
	}
	create := func(options string, events int) string {
		s.ok(`blockdev-create {"job-id":"j","options":{"driver":"qcow2","file":"top","size":1048576` + options + `}}`)
		s.await(fmt.Sprint("JOB_STATUS_CHANGE ", events))
		said := s.do("query-jobs")
		s.ok(`job-dismiss {"id":"j"}`)
		s.await("JOB_STATUS_CHANGE 1")
		return said
	}
	for _, data := range []string{``, `,"data-file":"data"`} {
		require.Contains(t, create(data+`,"preallocation":"falloc"`, 4), "Unsupported preallocation mode 'falloc'; 'full' writes zeroes instead")
		require.Len(t, server.Stable("/export/top"), 512, "it was refused too late")
	}
	require.NotContains(t, create(`,"preallocation":"full"`, 5), `"error"`)
	require.Greater(t, len(server.Stable("/export/top")), 1<<20)
	require.NotContains(t, create(`,"data-file":"data","data-file-raw":true,"preallocation":"full"`, 5), `"error"`)
	require.Len(t, server.Stable("/export/data"), 1<<20)
	s.ok(`blockdev-add {"driver":"qcow2","node-name":"q","file":"top","data-file":"data"}`, `blockdev-del {"node-name":"q"}`)
}
