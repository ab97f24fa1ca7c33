package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// loopScript changes how event loops work, rightly and wrongly. QEMU keeps a value that it has refused for what it makes together with
// others, and so refuses the next one too; nothing is asked of an object after that.
const loopScript = `
		object-add {"qom-type":"iothread","id":"t0"}
		qom-list {"path":"/objects/t0"}
		qom-get {"path":"t0","property":"thread-pool-max"}
		qom-set {"path":"t0","property":"poll-max-ns","value":5}
		qom-set {"path":"t0","property":"poll-max-ns","value":-5}
		qom-set {"path":"t0","property":"poll-max-ns","value":"5"}
		qom-set {"path":"t0","property":"poll-max-ns","value":"x"}
		qom-set {"path":"t0","property":"poll-max-ns","value":1.5}
		qom-set {"path":"t0","property":"poll-max-ns","value":9223372036854775808}
		qom-set {"path":"t0","property":"poll-max-ns","value":9223372036854775807}
		qom-set {"path":"t0","property":"poll-max-ns","value":1e3}
		qom-set {"path":"t0","property":"poll-max-ns","value":null}
		qom-set {"path":"t0","property":"poll-max-ns","value":{}}
		qom-set {"path":"t0","property":"poll-max-ns","value":true}
		qom-set {"path":"t0","property":"poll-max-ns"}
		qom-set {"path":"t0","property":"poll-grow","value":3}
		qom-set {"path":"t0","property":"poll-grow","value":-3}
		qom-set {"path":"t0","property":"poll-grow","value":0}
		qom-set {"path":"t0","property":"poll-shrink","value":3}
		qom-set {"path":"t0","property":"poll-shrink","value":-3}
		qom-set {"path":"t0","property":"aio-max-batch","value":3}
		qom-set {"path":"t0","property":"aio-max-batch","value":-3}
		qom-set {"path":"t0","property":"aio-max-batch","value":9223372036854775807}
		qom-set {"path":"t0","property":"thread-pool-min","value":3}
		qom-set {"path":"t0","property":"thread-pool-max","value":-1}
		qom-set {"path":"t0","property":"thread-pool-max","value":2147483647}
		qom-set {"path":"t0","property":"thread-pool-max","value":5000}
		qom-get {"path":"t0","property":"thread-pool-max"}
		qom-get {"path":"t0","property":"thread-pool-min"}
		qom-set {"path":"t0","property":"type","value":"x"}
		qom-set {"path":"t0","property":"type","value":5}
		qom-set {"path":"/objects/t0","property":"nosuch","value":5}
		qom-set {"path":"/objects","property":"type","value":5}
		qom-set {"path":"/objects","property":"t0","value":5}
		qom-get {"path":"/objects","property":"t0"}
		qom-get {"path":"/objects","property":"type"}
		qom-get {"path":"t0","property":"poll-max-ns"}
		object-add {"qom-type":"iothread","id":"t1","poll-max-ns":"5"}
		object-add {"qom-type":"iothread","id":"t1","poll-max-ns":9223372036854775808}
		object-add {"qom-type":"iothread","id":"t1","thread-pool-max":2147483648}
		object-add {"qom-type":"iothread","id":"t1","thread-pool-max":5000}
		object-add {"qom-type":"iothread","id":"t2","aio-max-batch":9223372036854775807,"poll-grow":9223372036854775807,"poll-shrink":9223372036854775807}
		qom-get {"path":"t1","property":"thread-pool-max"}
		object-add {"qom-type":"main-loop","id":"ml","poll-max-ns":5}
		object-add {"qom-type":"main-loop","id":"ml","aio-max-batch":5}
		qom-list {"path":"ml"}
		qom-set {"path":"ml","property":"aio-max-batch","value":7}
		qom-set {"path":"ml","property":"thread-pool-max","value":7}
		qom-get {"path":"ml","property":"aio-max-batch"}
		object-add {"qom-type":"main-loop","id":"ml2"}
		object-del {"id":"ml"}
		object-add {"qom-type":"iothread","id":"t3","thread-pool-min":3}
		qom-set {"path":"t3","property":"thread-pool-min","value":65}
		object-add {"qom-type":"iothread","id":"t4","thread-pool-min":3}
		qom-set {"path":"t4","property":"thread-pool-max","value":2}
		object-add {"qom-type":"iothread","id":"t5"}
		qom-set {"path":"t5","property":"thread-pool-max","value":0}
		object-add {"qom-type":"iothread","id":"t6"}
		qom-set {"path":"t6","property":"thread-pool-max","value":2147483648}
		object-add {"qom-type":"throttle-group","id":"g"}
		qom-set {"path":"g","property":"type","value":"x"}
		object-add {"qom-type":"authz-simple","id":"a","identity":"me"}
		qom-set {"path":"a","property":"type","value":"x"}
`

// Goal: the properties of event loops are set, read and refused as qemu-storage-daemon does. Method: a script is sent to both.
func TestLoopPropertiesAsQEMU(t *testing.T) {
	want := transcript(t, stockQSD, nil, loopScript)
	require.Equal(t, want, transcript(t, asProgram(t, qsdName), nil, loopScript))
}

// pathScript names objects, and what holds them, in all ways that there are.
const pathScript = `
		object-add {"qom-type":"iothread","id":"t0"}
		qom-list {"path":"/objects/"}
		qom-list {"path":"objects"}
		object-add {"qom-type":"throttle-group","id":"g0"}
		qom-list {"path":"//objects//t0/"}
		qom-list {"path":"objects/t0"}
		qom-list {"path":"/t0"}
		qom-list {"path":"/objects/t0/x"}
		qom-get {"path":"/","property":"type"}
		qom-get {"path":"//","property":"objects"}
		qom-get {"path":"/","property":"t0"}
		qom-get {"path":"","property":"type"}
		qom-get {"path":"objects","property":"type"}
		qom-get {"path":"objects/","property":"t0"}
		qom-get {"path":"objects//g0","property":"x-iops-total"}
		qom-get {"path":"/g0","property":"type"}
		qom-set {"path":"/","property":"type","value":"x"}
		qom-set {"path":"/","property":"objects","value":"x"}
		qom-set {"path":"/","property":"nosuch","value":1}
		qom-set {"path":"//objects///g0//","property":"limits","value":{"iops-total":5}}
		qom-get {"path":"g0","property":"x-iops-total"}
`

// Goal: a QOM path leads to what it leads to with QEMU. Method: a script is sent to both; of the root only the objects are there with us.
func TestObjectPathsAsQEMU(t *testing.T) {
	ours := asProgram(t, qsdName)
	require.Equal(t, transcript(t, stockQSD, nil, pathScript), transcript(t, ours, nil, pathScript))
	require.Contains(t, transcript(t, ours, nil, `qom-list {"path":"//"}`), `{"name":"objects","type":"child\u003ccontainer\u003e"}`)
}
