package nfs

import (
	"context"
	"net"
	"testing"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/imagelock"
)

// Goal: whatever a lock manager answers, a question to it ends, and no lock is taken for granted that was not given. Method: fuzzing of all that comes over the connection behind the
// transaction id.
func FuzzLockAnswers(f *testing.F) {
	granted := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0}
	f.Add(granted)
	f.Add(append(granted[:len(granted)-1:len(granted)-1], 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, answer []byte) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for _, ask := range []func(k *locker) (wire.LockStat, error){
			func(k *locker) (wire.LockStat, error) { return k.lock(imagelock.First, true) },
			func(k *locker) (wire.LockStat, error) { s, _, err := k.probe(imagelock.First); return s, err },
			func(k *locker) (wire.LockStat, error) { return 0, k.unlock(k.owner) },
		} {
			here, there := net.Pipe()
			k := &locker{ctx: ctx, client: newClient(ctx, here, nil), owner: &wire.LockOwner{Caller: "c"}, handle: wire.Handle("h")}
			go answerOnce(there, answer)
			s, err := ask(k)
			if err == nil && s == wire.LockGranted && len(answer) < 28 {
				t.Errorf("granted by %d bytes", len(answer))
			}
			k.client.close()
		}
	})
}

// answerOnce reads a call and answers it, and ends the connection.
func answerOnce(conn net.Conn, answer []byte) {
	defer conn.Close()
	call, err := readRecord(conn)
	if err != nil || len(call) < 4 {
		return
	}
	record := append([]byte{0, 0, 0, 0}, call[:4]...)
	record = append(record, answer...)
	wire.FinishCall(record, 0)
	_, _ = conn.Write(record)
}
