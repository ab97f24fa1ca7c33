package qmp

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// LostEvents is the event that a monitor gets in the place of those that were dropped because it did not read.
// Its data is {"count": N}. QEMU has nothing like it: it keeps everything, whatever memory that takes.
const LostEvents = "X_EVENTS_LOST"

// Event is something that happened in the server.
type Event struct {
	Name string
	Time time.Time
	Data json.RawMessage
}

func eventOf(name string, now time.Time, data any) node {
	members := []member{
		{"timestamp", objectOf(
			member{"seconds", integerOf(now.Unix())},
			member{"microseconds", integerOf(int64(now.Nanosecond() / 1000))},
		)},
		{"event", stringOf(name)},
	}
	if data != nil {
		tree, err := nodeOf(data)
		if err != nil {
			panic(fmt.Sprintf("qmp: the data of event %s is no JSON: %v", name, err))
		}
		members = append(members, member{"data", tree})
	}
	return objectOf(members...)
}

func lostEvents(count uint64) node {
	return eventOf(LostEvents, time.Now(), map[string]uint64{"count": count})
}

func integerOf(n int64) node { return node{kind: Integer, text: strconv.FormatInt(n, 10)} }
