package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// createScript is sent to QEMU's storage daemon and to ours.
const createScript = `
	blockdev-create {"job-id":"j1","options":{"driver":"file","filename":"DIR/c1.img","size":1048576}}
	await JOB_STATUS_CHANGE 5
	query-jobs
	job-dismiss {"id":"j1"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"j2","options":{"driver":"file","filename":"DIR/no/c1.img","size":1048576}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"j2"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"j3","options":{"driver":"file","filename":"DIR/c1.img","size":1048577,"preallocation":"falloc"}}
	await JOB_STATUS_CHANGE 5
	query-jobs
	job-dismiss {"id":"j3"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"j4","options":{"driver":"file","filename":"DIR/c1.img","size":-1}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"j4"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"1x","options":{"driver":"file","filename":"DIR/c1.img","size":1}}
	query-jobs
	job-dismiss {"id":"1x"}
	blockdev-create {"job-id":"j5","options":{"driver":"nosuch","filename":"x","size":1}}
	query-jobs
	job-dismiss {"id":"j5"}
	blockdev-create {"job-id":"j6","options":{"driver":"file","filename":"DIR/c1.img"}}
	query-jobs
	job-dismiss {"id":"j6"}
	blockdev-create {"job-id":"j7","options":{"driver":"file","filename":"DIR/c1.img","size":1,"preallocation":"metadata"}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"j7"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"j8","options":{"driver":"file","filename":"DIR/c1.img","size":1,"preallocation":"much"}}
	query-jobs
	job-dismiss {"id":"j8"}
	blockdev-add {"driver":"file","node-name":"f1","filename":"DIR/c1.img"}
	blockdev-create {"job-id":"q1","options":{"driver":"qcow2","file":"f1","size":1048576}}
	await JOB_STATUS_CHANGE 5
	query-jobs
	job-dismiss {"id":"q1"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"q2","options":{"driver":"qcow2","file":"nope","size":1048576}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"q2"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"q3","options":{"driver":"qcow2","file":"f1","size":1048577}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"q3"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"q4","options":{"driver":"qcow2","file":"f1","size":1048576,"cluster-size":1000}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"q4"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"q5","options":{"driver":"qcow2","file":"f1","size":1048576,"version":"v2","lazy-refcounts":true}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"q5"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"q6","options":{"driver":"qcow2","file":"f1","size":1048576,"version":"v4"}}
	query-jobs
	job-dismiss {"id":"q6"}
	blockdev-create {"job-id":"q7","options":{"driver":"qcow2","file":"f1","size":1048576,"backing-fmt":"raw"}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"q7"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"q8","options":{"driver":"qcow2","file":"f1","size":1048576,"backing-file":"/nosuch","backing-fmt":"raw"}}
	await JOB_STATUS_CHANGE 5
	query-jobs
	job-dismiss {"id":"q8"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"q9","options":{"driver":"qcow2","file":"f1","size":1048576,"refcount-bits":7}}
	await JOB_STATUS_CHANGE 4
	query-jobs
	job-dismiss {"id":"q9"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"q10","options":{"driver":"qcow2","file":"f1","size":1048576,"bogus":7}}
	query-jobs
	job-dismiss {"id":"q10"}
	blockdev-del {"node-name":"f1"}
	blockdev-create {"job-id":"q11","options":{"driver":"qcow2","file":{"driver":"file","filename":"DIR/c1.img"},"size":2097152,"preallocation":"metadata","cluster-size":4096,"extended-l2":false,"compression-type":"zlib","refcount-bits":8}}
	await JOB_STATUS_CHANGE 5
	query-jobs
	job-dismiss {"id":"q11"}
	await JOB_STATUS_CHANGE
	blockdev-create {"job-id":"same","options":{"driver":"file","filename":"DIR/c3.img","size":1}}
	await JOB_STATUS_CHANGE 5
	blockdev-create {"job-id":"same","options":{"driver":"file","filename":"DIR/c3.img","size":1}}
	job-cancel {"id":"same"}
	job-pause {"id":"same"}
	job-resume {"id":"same"}
	job-complete {"id":"same"}
	job-finalize {"id":"same"}
	query-jobs
	query-block-jobs
	query-named-block-nodes
	job-dismiss {"id":"same"}
	await JOB_STATUS_CHANGE
	job-dismiss {"id":"same"}
	job-dismiss {"id":"zz"}
`

// Goal: blockdev-create makes files and images as qemu-storage-daemon does, with the same events, states and errors. Method: one script is sent to both, and
// qemu-img tells what is left.
func TestCreateAsQEMU(t *testing.T) {
	look := func(program string) (said []string) {
		s := steer(t, program)
		for line := range strings.Lines(createScript) {
			if line = strings.TrimSpace(line); line != "" {
				said = append(said, line+"\n\t"+s.do(line))
			}
		}
		require.Zero(t, s.end(syscall.SIGTERM).Status)
		left := run(t, s.dir, "/bin/sh", "-c", "qemu-img info c1.img | grep -v 'disk size'; qemu-img check c1.img | grep -v 'end offset'; stat -c %s c3.img")
		return append(said, left.Stdout)
	}
	want := look(stockQSD)
	require.Equal(t, want, look(asProgram(t, qsdName)))
}
