package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// monitorScripts are sent to QEMU's storage daemon and to ours.
var monitorScripts = []struct{ name, script string }{
	{"blockdev-add", `
		blockdev-add {"driver":"null-co","node-name":"n0","size":1048576}
		blockdev-add {"driver":"null-co","node-name":"n0","size":1048576}
		blockdev-add {"driver":"null-co","size":1048576}
		blockdev-add {"driver":"nosuch","node-name":"x"}
		blockdev-add {"driver":"null-co","node-name":"1x"}
		blockdev-add {"driver":"null-co","node-name":"x y"}
		blockdev-add {"driver":"null-co","node-name":""}
		blockdev-add {"driver":"null-co","node-name":"#block1"}
		blockdev-add {"driver":"null-co","node-name":"aaaaaaaaaabbbbbbbbbbccccccccccd"}
		blockdev-add {"driver":"null-co","node-name":"aaaaaaaaaabbbbbbbbbbccccccccccdd"}
		blockdev-add {"driver":"null-co","node-name":"x","bogus":1}
		blockdev-add {"driver":"null-co","node-name":"x","latency-ns":-1}
		blockdev-add {"driver":"null-co","node-name":"x","detect-zeroes":"unmap"}
		blockdev-add {"node-name":"x"}
		blockdev-add {"driver":"file","node-name":"f"}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/missing"}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/dir"}
		blockdev-add {"driver":"file","node-name":"f","filename":""}
		blockdev-add {"driver":"file","node-name":"f","filename":"/dev/null"}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img","aio":"nosuch"}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img","aio":"native"}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img","locking":"nosuch"}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img","detect-zeroes":"unmap"}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img","pr-manager":"nosuch"}
		blockdev-add {"driver":"host_device","node-name":"f","filename":"DIR/d.img"}
		blockdev-add {"driver":"host_device","node-name":"f","filename":"DIR/missing"}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img","read-only":true,"cache":{"direct":false,"no-flush":true}}
		query-named-block-nodes
		query-named-block-nodes {"flat":true}
		query-blockstats
		query-block
		blockdev-del {"node-name":"f"}
		blockdev-del {"node-name":"f"}
		blockdev-del {"node-name":""}
		blockdev-del {"node-name":"n0"}
		query-named-block-nodes
	`},
	{"exports", `
		block-export-add {"type":"nbd","id":"e0","node-name":"n0"}
		blockdev-add {"driver":"null-co","node-name":"n0","size":1048576}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0"}
		nbd-server-add {"device":"n0"}
		nbd-server-remove {"name":"n0"}
		nbd-server-stop
		block-export-del {"id":"e0"}
		nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/none/s"}}}
		nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}},"tls-creds":"nosuch"}
		nbd-server-start {"addr":{"type":"inet","data":{"host":"127.0.0.1","port":"abc"}}}
		nbd-server-start {"addr":{"type":"inet","data":{"host":"nosuch.invalid","port":"0"}}}
		nbd-server-start {"addr":{"type":"inet","data":{"host":"192.0.2.1","port":"0"}}}
		nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}
		nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s2"}}}
		block-export-add {"type":"nbd","id":"e0","node-name":"nope"}
		block-export-add {"type":"nbd","id":"1e","node-name":"n0"}
		block-export-add {"type":"nbd","id":"","node-name":"n0"}
		block-export-add {"type":"nbd","id":"a b","node-name":"n0"}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","iothread":"nope"}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","iothread":"nope","fixed-iothread":true}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","bitmaps":["b"]}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","bitmap":"b"}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","bitmaps":[{"node":"n0","name":"b"}]}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","bitmaps":[{"node":"nope","name":"b"}]}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","bitmaps":[]}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0"}
		block-export-add {"type":"nbd","id":"e1","node-name":"n0"}
		block-export-add {"type":"nbd","id":"e1","node-name":"n0","name":"x","writable":true}
		block-export-add {"type":"nbd","id":"e2","node-name":"n0","name":"y","writable":true,"description":"text","allocation-depth":true}
		query-block-exports
		x-debug-query-block-graph
		blockdev-del {"node-name":"n0"}
		blockdev-add {"driver":"null-co","node-name":"ro","size":1048576,"read-only":true}
		block-export-add {"type":"nbd","id":"r","node-name":"ro","writable":true}
		block-export-add {"type":"nbd","id":"r","node-name":"ro"}
		nbd-server-add {"device":"ro","name":"legacy","writable":true}
		nbd-server-add {"device":"ro","name":"legacy","writable":true}
		nbd-server-add {"device":"nope"}
		nbd-server-add {"device":"n0","bitmap":"b","name":"z"}
		nbd-server-add {"device":"n0"}
		nbd-server-remove {"name":"nope"}
		nbd-server-remove {"name":"legacy"}
		await BLOCK_EXPORT_DELETED
		block-export-del {"id":"nope"}
		block-export-del {"id":"e1","mode":"hard"}
		await BLOCK_EXPORT_DELETED
		block-export-del {"id":"e1"}
		nbd-server-stop
		await BLOCK_EXPORT_DELETED 3
		query-block-exports
		nbd-server-stop
		blockdev-del {"node-name":"n0"}
	`},
	{"export names", `
		blockdev-add {"driver":"null-co","node-name":"n0","size":1048576}
		nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}},"max-connections":0}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","name":""}
		block-export-add {"type":"nbd","id":"e.1_-","node-name":"n0","name":"` + long(4096) + `"}
		block-export-add {"type":"nbd","id":"e2","node-name":"n0","name":"` + long(4097) + `"}
		block-export-add {"type":"nbd","id":"e2","node-name":"n0","name":"n","description":"` + long(4097) + `"}
		query-block-exports
	`},
	{"resize", `
		blockdev-add {"driver":"null-co","node-name":"n0","size":1048576}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img"}
		block_resize {"node-name":"n0","size":2097152}
		block_resize {"node-name":"f","size":2097152}
		block_resize {"node-name":"f","size":1000}
		block_resize {"node-name":"f","size":0}
		block_resize {"node-name":"nope","size":1}
		block_resize {"device":"nope","size":1}
		block_resize {"device":"","size":1}
		block_resize {"size":1}
		block_resize {"device":"f","node-name":"f","size":1024}
		block_resize {"device":"f","size":512}
		query-named-block-nodes {"flat":true}
	`},
	{"objects", `
		object-add {"qom-type":"iothread","id":"t0"}
		object-add {"qom-type":"iothread","id":"t0"}
		object-add {"qom-type":"nosuch","id":"x"}
		object-add {"qom-type":"iothread","id":"1x"}
		object-add {"qom-type":"iothread","id":""}
		object-add {"qom-type":"iothread"}
		object-add {"id":"x"}
		object-add {"qom-type":"iothread","id":"x","bogus":1}
		object-add {"qom-type":"iothread","id":"x","poll-max-ns":-1}
		object-add {"qom-type":"iothread","id":"x","poll-grow":-1}
		object-add {"qom-type":"iothread","id":"x","poll-shrink":-1}
		object-add {"qom-type":"iothread","id":"x","aio-max-batch":-1}
		object-add {"qom-type":"iothread","id":"x","thread-pool-max":0}
		object-add {"qom-type":"iothread","id":"x","thread-pool-max":-1}
		object-add {"qom-type":"iothread","id":"x","thread-pool-min":-1}
		object-add {"qom-type":"iothread","id":"x","thread-pool-min":5,"thread-pool-max":4}
		object-add {"qom-type":"iothread","id":"t1","poll-max-ns":0,"poll-grow":2,"poll-shrink":3,"aio-max-batch":4}
		qom-get {"path":"t1","property":"poll-grow"}
		qom-get {"path":"/objects/t1","property":"aio-max-batch"}
		qom-get {"path":"/objects/t1","property":"type"}
		qom-get {"path":"/objects/t1","property":"nosuch"}
		qom-get {"path":"/objects/nosuch","property":"type"}
		qom-get {"path":"nosuch","property":"type"}
		qom-set {"path":"/objects/t0","property":"nosuch","value":5}
		qom-set {"path":"/objects/nosuch","property":"nosuch","value":5}
		qom-list {"path":"/nosuch"}
		object-del {"id":"nosuch"}
		object-del {"id":"t0"}
		object-del {"id":"t0"}
		object-add {"qom-type":"throttle-group","id":"g","limits":{"iops-total":100,"bps-read":1000}}
		object-add {"qom-type":"throttle-group","id":"h","limits":{"iops-total":100,"iops-read":1000}}
		object-add {"qom-type":"throttle-group","id":"h","limits":{"iops-total":-1}}
		object-add {"qom-type":"throttle-group","id":"h","limits":{"iops-total-max":5}}
		object-add {"qom-type":"throttle-group","id":"h","limits":{"iops-total":10,"iops-total-max":5}}
		object-add {"qom-type":"throttle-group","id":"h","limits":{"iops-total":10,"iops-total-max-length":5}}
		object-add {"qom-type":"throttle-group","id":"h","limits":{"iops-total":10,"iops-total-max-length":0}}
		object-add {"qom-type":"throttle-group","id":"h","limits":{"iops-size":4096}}
		object-add {"qom-type":"throttle-group","id":"h2","limits":{"bogus":4096}}
		object-add {"qom-type":"throttle-group","id":"h2","limits":{"iops-total":"x"}}
		object-add {"qom-type":"throttle-group","id":"h2","limits":{"iops-total":10000000000000000}}
		object-add {"qom-type":"throttle-group","id":"h2","x-iops-total":5,"x-iops-total-max":10}
		object-add {"qom-type":"throttle-group","id":"h3","limits":1}
		qom-get {"path":"/objects/g","property":"limits"}
		qom-get {"path":"/objects/h2","property":"x-iops-total-max"}
		qom-set {"path":"/objects/g","property":"limits","value":{"iops-total":7}}
		qom-get {"path":"/objects/g","property":"limits"}
		qom-set {"path":"/objects/g","property":"limits","value":{"iops-total":7,"iops-read":7}}
		qom-set {"path":"/objects/g","property":"limits","value":{"bogus":7}}
		qom-set {"path":"/objects/g","property":"limits","value":1}
		qom-set {"path":"/objects/g","property":"x-iops-total","value":1}
		qom-set {"path":"/objects/g","property":"nosuch","value":1}
		qom-get {"path":"/objects/g","property":"limits"}
		object-del {"id":"g"}
	`},
	{"security objects", `
		object-add {"qom-type":"authz-simple","id":"a","identity":"me"}
		object-add {"qom-type":"authz-simple","id":"b"}
		object-add {"qom-type":"authz-simple","id":"b","bogus":1}
		object-add {"qom-type":"authz-list","id":"b","policy":"nosuch"}
		object-add {"qom-type":"authz-list","id":"b","policy":"deny","rules":[{"match":"x","policy":"allow","format":"glob"}]}
		object-add {"qom-type":"authz-list","id":"b2","rules":[{"policy":"allow"}]}
		object-add {"qom-type":"authz-list","id":"b2","rules":[{"match":"x"}]}
		object-add {"qom-type":"authz-list","id":"b2","rules":[{"match":"x","policy":"allow","format":"nosuch"}]}
		object-add {"qom-type":"tls-creds-x509","id":"t"}
		object-add {"qom-type":"tls-creds-x509","id":"t","dir":"DIR/missing","endpoint":"server"}
		object-add {"qom-type":"tls-creds-x509","id":"t","dir":"DIR","endpoint":"server"}
		object-add {"qom-type":"tls-creds-x509","id":"t","dir":"DIR","endpoint":"nosuch"}
		object-add {"qom-type":"tls-creds-x509","id":"t","dir":"DIR","verify-peer":"yes"}
		nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}},"tls-creds":"a"}
		object-del {"id":"a"}
	`},
	{"iothreads", `
		object-add {"qom-type":"iothread","id":"t0"}
		object-add {"qom-type":"iothread","id":"t1"}
		blockdev-add {"driver":"null-co","node-name":"n0","size":1048576}
		x-blockdev-set-iothread {"node-name":"n0","iothread":"t0"}
		x-blockdev-set-iothread {"node-name":"n0","iothread":"nope"}
		x-blockdev-set-iothread {"node-name":"nope","iothread":"t0"}
		x-blockdev-set-iothread {"node-name":"n0","iothread":null}
		x-blockdev-set-iothread {"node-name":"n0","iothread":5}
		object-add {"qom-type":"throttle-group","id":"g"}
		x-blockdev-set-iothread {"node-name":"n0","iothread":"g"}
		nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}
		block-export-add {"type":"nbd","id":"e0","node-name":"n0","iothread":"t0"}
		x-blockdev-set-iothread {"node-name":"n0","iothread":"t1"}
		x-blockdev-set-iothread {"node-name":"n0","iothread":"t1","force":true}
		block-export-add {"type":"nbd","id":"e1","node-name":"n0","name":"x","iothread":"t0","fixed-iothread":true}
		block-export-add {"type":"nbd","id":"e2","node-name":"n0","name":"y","iothread":"g"}
		x-blockdev-set-iothread {"node-name":"n0","iothread":"t0","force":true}
		x-blockdev-set-iothread {"node-name":"n0","iothread":null,"force":true}
		query-block-exports
		nbd-server-stop
		object-del {"id":"t0"}
	`},
	{"transaction", `
		transaction {"actions":[]}
		transaction {"actions":[{"type":"abort","data":{}}]}
		transaction {"actions":[{"type":"nosuch","data":{}}]}
		transaction {"actions":[{"type":"abort","data":{}}],"properties":{"completion-mode":"grouped"}}
		blockdev-add {"driver":"null-co","node-name":"n0","size":1048576}
		blockdev-add {"driver":"null-co","node-name":"n1","size":1048576}
		blockdev-snapshot {"node":"n0","overlay":"n1"}
		blockdev-snapshot {"node":"nope","overlay":"n1"}
		blockdev-snapshot {"node":"n0","overlay":"nope"}
		transaction {"actions":[{"type":"blockdev-snapshot","data":{"node":"nope","overlay":"n1"}},{"type":"abort","data":{}}]}
		transaction {"actions":[{"type":"blockdev-snapshot","data":{"node":"n0","overlay":"n1"}}],"properties":{"completion-mode":"grouped"}}
	`},
	{"reopen", `
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img"}
		blockdev-add {"driver":"raw","node-name":"r","file":"f"}
		blockdev-add {"driver":"null-co","node-name":"n","size":1048576}
		nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}
		block-export-add {"type":"nbd","id":"e","node-name":"r","writable":true}
		blockdev-reopen {"options":[{"driver":"raw","node-name":"r","file":"f","offset":512}]}
		blockdev-reopen {"options":[{"driver":"raw","node-name":"r","file":"f","offset":51200000}]}
		blockdev-reopen {"options":[{"driver":"raw","node-name":"r","file":"f","size":1000}]}
		blockdev-reopen {"options":[{"driver":"raw","node-name":"r"}]}
		blockdev-reopen {"options":[{"driver":"raw","node-name":"r","file":"n"}]}
		blockdev-reopen {"options":[{"driver":"raw","node-name":"r","file":"nope"}]}
		blockdev-reopen {"options":[{"driver":"raw","node-name":"r","file":{"driver":"file","filename":"DIR/d.img"}}]}
		blockdev-reopen {"options":[{"driver":"file","node-name":"f","filename":"DIR/e.img"}]}
		blockdev-reopen {"options":[{"driver":"file","node-name":"f","filename":"DIR/d.img","locking":"off"}]}
		blockdev-reopen {"options":[{"driver":"file","node-name":"f","filename":"DIR/d.img","discard":"unmap"}]}
		blockdev-reopen {"options":[{"driver":"null-co","node-name":"n"}]}
		blockdev-reopen {"options":[{"driver":"null-co","node-name":"n","size":1048576}]}
		blockdev-reopen {"options":[{"driver":"null-co","node-name":"n","size":2097152}]}
		blockdev-reopen {"options":[{"driver":"null-co","node-name":"n","size":1048576,"latency-ns":5}]}
		blockdev-reopen {"options":[{"driver":"null-co","node-name":"n","size":1048576},{"driver":"null-co","node-name":"n","size":1048576}]}
		blockdev-reopen {"options":[{"driver":"null-co"}]}
		blockdev-add {"driver":"throttle","node-name":"t","file":"n"}
		blockdev-add {"driver":"throttle","node-name":"t","file":"n","throttle-group":"nope"}
		blockdev-add {"driver":"raw","node-name":"r2","file":"nope"}
		blockdev-add {"driver":"raw","node-name":"r2","file":"n","size":1000}
		blockdev-add {"driver":"raw","node-name":"r2","file":"n","size":1048576,"offset":512}
		blockdev-add {"driver":"raw","node-name":"r2","file":"n","offset":-512}
		blockdev-add {"driver":"raw","node-name":"r2","file":"f"}
		blockdev-add {"driver":"copy-on-read","node-name":"c","file":"n","bottom":"nope"}
		object-add {"qom-type":"throttle-group","id":"g"}
		blockdev-add {"driver":"throttle","node-name":"t","file":"n","throttle-group":"g"}
		blockdev-reopen {"options":[{"driver":"throttle","node-name":"t","file":"n","throttle-group":"nope"}]}
		object-del {"id":"g"}
		blockdev-del {"node-name":"n"}
		blockdev-add {"driver":"copy-on-read","node-name":"c","file":"n"}
		x-debug-query-block-graph
	`},
	{"filters", `
		blockdev-add {"driver":"null-co","node-name":"n","size":1048576}
		blockdev-add {"driver":"raw","node-name":"r","file":{"driver":"file","filename":"DIR/d.img"}}
		blockdev-add {"driver":"raw","node-name":"r2","file":{"driver":"file","filename":"DIR/missing"}}
		blockdev-add {"driver":"raw","node-name":"r2","file":{"driver":"file"}}
		blockdev-add {"driver":"raw","node-name":"r2"}
		blockdev-add {"driver":"raw","node-name":"r2","file":5}
		blockdev-add {"driver":"raw","node-name":"r2","file":{"driver":"null-co","node-name":"n"}}
		blockdev-add {"driver":"raw","node-name":"r2","file":{"driver":"null-co","node-name":"nn","size":4096},"offset":512,"size":1024}
		blockdev-add {"driver":"blkdebug","node-name":"b","image":"n","inject-error":[{"event":"nosuch"}]}
		blockdev-add {"driver":"blkdebug","node-name":"b","image":"n","inject-error":[{"event":"none","iotype":"nosuch"}]}
		blockdev-add {"driver":"blkdebug","node-name":"b","image":"nope"}
		blockdev-add {"driver":"blkdebug","node-name":"b","image":"n","inject-error":[{"event":"none","iotype":"read","errno":5,"once":true}]}
		blockdev-del {"node-name":"b"}
		object-add {"qom-type":"throttle-group","id":"g","limits":{"iops-total":1000}}
		blockdev-add {"driver":"throttle","node-name":"t","file":"r","throttle-group":"g"}
		x-debug-query-block-graph
		blockdev-del {"node-name":"r"}
		blockdev-del {"node-name":"t"}
		object-del {"id":"g"}
		blockdev-del {"node-name":"r"}
		blockdev-del {"node-name":"nn"}
		blockdev-del {"node-name":"r2"}
		x-debug-query-block-graph
	`},
	{"compress", `
		blockdev-add {"driver":"null-co","node-name":"n","size":1048576}
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img"}
		blockdev-add {"driver":"compress","node-name":"c"}
		blockdev-add {"driver":"compress","node-name":"c","file":"nope"}
		blockdev-add {"driver":"compress","node-name":"c","file":"n"}
		blockdev-add {"driver":"compress","node-name":"c","file":{"driver":"raw","file":"f"}}
		blockdev-add {"driver":"compress","node-name":"c","file":"n","bottom":"n"}
		object-add {"qom-type":"throttle-group","id":"g"}
		blockdev-add {"driver":"throttle","node-name":"t","file":"n","throttle-group":"g"}
		blockdev-add {"driver":"compress","node-name":"c","file":"t"}
		blockdev-add {"driver":"compress","node-name":"c2","file":"c"}
		x-debug-query-block-graph
		blockdev-del {"node-name":"t"}
		blockdev-del {"node-name":"c"}
		blockdev-del {"node-name":"t"}
	`},
	{"names before files", `
		blockdev-add {"driver":"null-co","node-name":"a"}
		blockdev-add {"driver":"raw","file":{"driver":"file","filename":"DIR/missing"}}
		blockdev-add {"driver":"file","filename":"DIR/missing"}
		blockdev-add {"driver":"file","node-name":"a","filename":"DIR/missing"}
		blockdev-add {"driver":"file","node-name":"9","filename":"DIR/missing"}
		blockdev-add {"driver":"raw","node-name":"b","file":{"driver":"file","node-name":"a","filename":"DIR/missing"}}
		blockdev-add {"driver":"raw","node-name":"b","file":{"driver":"file","node-name":"9","filename":"DIR/missing"}}
		blockdev-add {"driver":"copy-on-read","file":{"driver":"raw","node-name":"a","file":{"driver":"file","filename":"DIR/missing"}}}
		blockdev-add {"driver":"raw","file":"nope"}
	`},
	{"sizes and sockets that are refused", `
		blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img"}
		blockdev-add {"driver":"raw","node-name":"r","file":"f","offset":512,"size":1024}
		block_resize {"node-name":"r","size":512}
		block_resize {"node-name":"r","size":0}
		nbd-server-start {"addr":{"type":"vsock","data":{"cid":"x","port":"y"}}}
		nbd-server-start {"addr":{"type":"vsock","data":{"cid":"1","port":"y"}}}
		nbd-server-start {"addr":{"type":"vsock","data":{"cid":"1","port":"-1"}}}
		nbd-server-start {"addr":{"type":"vsock","data":{"cid":"99999999999","port":"1"}}}
	`},
	{"sealed secrets", `
		object-add {"qom-type":"secret","id":"k","data":"0123456789abcdef0123456789ABCDEF"}
		object-add {"qom-type":"secret","id":"short","data":"abc"}
		object-add {"qom-type":"secret","id":"s","data":"x","keyid":"none"}
		object-add {"qom-type":"iothread","id":"io"}
		object-add {"qom-type":"secret","id":"s","data":"x","keyid":"io"}
		object-add {"qom-type":"secret","id":"s","data":"x","keyid":"short"}
		object-add {"qom-type":"secret","id":"s","data":"x","keyid":"k"}
		object-add {"qom-type":"secret","id":"s","data":"x","keyid":"k","iv":"!"}
		object-add {"qom-type":"secret","id":"s","data":"x","keyid":"k","iv":"AAAA"}
		object-add {"qom-type":"secret","id":"s","data":"x","keyid":"k","iv":"MDEyMzQ1Njc4OWFiY2RlZg=="}
		object-add {"qom-type":"secret","id":"s","data":"!","keyid":"k","iv":"MDEyMzQ1Njc4OWFiY2RlZg==","format":"base64"}
		object-add {"qom-type":"secret","id":"s","data":"YQ==","keyid":"k","iv":"MDEyMzQ1Njc4OWFiY2RlZg==","format":"base64"}
		object-add {"qom-type":"secret","id":"s","data":"v//POsqc95Jmh5yG/D2KFw==","keyid":"k","iv":"MDEyMzQ1Njc4OWFiY2RlZg==","format":"base64"}
		object-add {"qom-type":"secret","id":"s","data":"2oRZRIsbd8ao9p7dXNxD9g==","keyid":"k","iv":"MDEyMzQ1Njc4OWFiY2RlZg==","format":"base64"}
		object-add {"qom-type":"secret","id":"s2","data":"jyqlSXgvAIKnVhN8w8KNn0WOhGUk5xNUXr0I+XOS0SLhtNJlW+VgrRJ9AubgxP+L","keyid":"k","iv":"MDEyMzQ1Njc4OWFiY2RlZg==","format":"base64"}
		object-add {"qom-type":"secret","id":"s3","data":"x","keyid":"s2"}
		object-add {"qom-type":"secret","id":"s4","data":"","keyid":"k","iv":"MDEyMzQ1Njc4OWFiY2RlZg=="}
		object-add {"qom-type":"secret","id":"s5","data":"x","iv":"!"}
		object-add {"qom-type":"secret_keyring","id":"s6"}
		object-add {"qom-type":"secret_keyring","id":"s6","serial":2147483647}
		object-add {"qom-type":"secret_keyring","id":"s6","serial":4294967296}
		object-add {"qom-type":"secret_keyring","id":"s6","serial":1,"loaded":true}
		object-add {"qom-type":"secret_keyring","id":"s6","serial":1,"format":"hex"}
	`},
	{"secrets", `
		object-add {"qom-type":"secret","id":"s"}
		object-add {"qom-type":"secret","id":"s","data":"x","file":"DIR/d.img"}
		object-add {"qom-type":"secret","id":"s","file":"DIR/missing"}
		object-add {"qom-type":"secret","id":"s","file":"DIR"}
		object-add {"qom-type":"secret","id":"s","data":"!!!","format":"base64"}
		object-add {"qom-type":"secret","id":"s","data":"x","format":"hex"}
		object-add {"qom-type":"secret","id":"s","data":"x","loaded":true}
		object-add {"qom-type":"secret","id":"s","data":"x","bogus":1}
		object-add {"qom-type":"secret","id":"s","data":7}
		object-add {"qom-type":"secret","id":"9","data":"x"}
		object-add {"qom-type":"secret","data":"x"}
		object-add {"qom-type":"secret","id":"s","data":"c2Vj\ncmV0","format":"base64"}
		object-add {"qom-type":"secret","id":"s","data":"x"}
		object-add {"qom-type":"secret","id":"empty","data":"","format":"base64"}
		object-add {"qom-type":"secret","id":"odd","data":"abc","format":"base64"}
		object-add {"qom-type":"tls-creds-x509","id":"t","dir":"DIR","endpoint":"server","passwordid":7}
		object-del {"id":"s"}
		object-del {"id":"s"}
	`},
	{"meta", `
		nosuch
		query-commands {"x":1}
		qmp_capabilities
		qmp_capabilities {"enable":[]}
		qmp_capabilities {"enable":["oob"]}
		qmp_capabilities {"enable":["nosuch"]}
		qmp_capabilities {"enable":1}
		qmp_capabilities {"x":1}
		quit {"x":1}
	`},
}

func long(n int) string { return strings.Repeat("a", n) }

// Goal: what a monitor of qemu-storage-daemon is answered it is answered here. Method: scripts are sent to both.
func TestMonitorAnswersAsQEMU(t *testing.T) {
	ours := asProgram(t, qsdName)
	for _, s := range monitorScripts {
		t.Run(s.name, func(t *testing.T) {
			want := transcript(t, stockQSD, nil, s.script)
			require.Equal(t, want, transcript(t, ours, nil, s.script))
		})
	}
}
