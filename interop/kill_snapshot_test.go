package interop_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/verifier"
)

const (
	killSnapshots = 3                // at most, in an image
	killTakeEach  = time.Millisecond // at most, between two changes of the snapshots of an image that is served
)

// keptSnapshot is a snapshot, and what it holds.
type keptSnapshot struct {
	name    string
	capture *verifier.Capture
	disk    []byte // nil = nobody has read it yet
	doubt   bool   // it was being taken, or deleted, when the server was killed: it is there or not
}

// changeSnapshots takes or deletes a snapshot while nobody serves the image.
func (k *killing) changeSnapshots() {
	k.t.Helper()
	k.ledger.Shared()
	if n, del := k.chooseSnapshot(k.random); del {
		k.image("snapshot", "-d", k.snapshots[n].name, k.path)
		k.snapshots = slices.Delete(k.snapshots, n, n+1)
		return
	}
	s := &keptSnapshot{name: k.nextName(), disk: k.convert()}
	k.image("snapshot", "-c", s.name, k.path)
	k.snapshots = append(k.snapshots, s)
}

// chooseSnapshot returns one to delete, or false: take one.
func (k *killing) chooseSnapshot(random *rand.Rand) (int, bool) {
	if len(k.snapshots) == 0 || len(k.snapshots) < killSnapshots && random.IntN(3) > 0 {
		return 0, false
	}
	return random.IntN(len(k.snapshots)), true
}

func (k *killing) nextName() string {
	k.named++
	return "snapshot" + strconv.Itoa(k.named)
}

// snapshotLoop takes and deletes snapshots through the server's monitor until that is gone, and tells what the monitor refused. killWorking starts it and
// leaves the snapshots to it until it has ended.
func (k *killing) snapshotLoop(control string, random *rand.Rand, ended chan<- error) {
	conn, err := net.Dial("unix", control)
	if err != nil {
		ended <- err
		return
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	if _, err := in.ReadBytes('\n'); err != nil {
		ended <- nil
		return
	}
	answered, err := ask(conn, in, "qmp_capabilities", args{})
	for answered && err == nil {
		<-time.After(time.Duration(random.Int64N(int64(killTakeEach))))
		answered, err = k.changeLive(conn, in, random)
	}
	ended <- err
}

// changeLive takes or deletes one snapshot; false = the server is gone.
func (k *killing) changeLive(conn net.Conn, in *bufio.Reader, random *rand.Rand) (bool, error) {
	if n, del := k.chooseSnapshot(random); del {
		k.snapshots[n].doubt = true
		answered, err := ask(conn, in, "blockdev-snapshot-delete-internal-sync", args{"device": "disk0", "name": k.snapshots[n].name})
		if answered && err == nil {
			k.snapshots = slices.Delete(k.snapshots, n, n+1)
			k.live++
		}
		return answered, err
	}
	s := &keptSnapshot{name: k.nextName(), doubt: true, capture: k.ledger.Capture()}
	k.snapshots = append(k.snapshots, s)
	answered, err := ask(conn, in, "blockdev-snapshot-internal-sync", args{"device": "disk0", "name": s.name})
	if answered && err == nil {
		k.ledger.Captured()
		s.doubt = false
		k.live++
	}
	return answered, err
}

// ask sends a command to a monitor; false = it is gone.
func ask(conn net.Conn, in *bufio.Reader, command string, arguments args) (bool, error) {
	text, err := json.Marshal(args{"execute": command, "arguments": arguments})
	if err != nil {
		return false, err
	}
	if _, err := conn.Write(text); err != nil {
		return false, nil
	}
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return false, nil
		}
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		switch err := json.Unmarshal(line, &answer); {
		case err != nil:
			return false, err
		case answer.Error != nil:
			return true, fmt.Errorf("%s: %s", command, answer.Error.Desc)
		case answer.Return != nil:
			return true, nil
		}
	}
}

// inspectSnapshots holds the snapshots that are in an image against those that have to be, and what they hold against what they may.
func (k *killing) inspectSnapshots(there []string) {
	k.t.Helper()
	k.snapshots = slices.DeleteFunc(k.snapshots, func(s *keptSnapshot) bool { return s.doubt && !slices.Contains(there, s.name) })
	require.Len(k.t, there, len(k.snapshots), "snapshots %q", there)
	for _, s := range k.snapshots {
		require.Contains(k.t, there, s.name)
		s.doubt = false
		disk := k.convert("-l", "snapshot.name="+s.name)
		if s.disk == nil {
			require.NoError(k.t, k.ledger.Holds(s.capture, disk), "snapshot %s, after %d kills", s.name, k.all)
			s.disk = disk
		}
		require.Equal(k.t, s.disk, disk, "snapshot %s", s.name)
	}
}
