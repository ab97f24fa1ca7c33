package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nbd-dataplane/qmp"
)

// What the server answers, as far as ctl reads it.

type exportAnswer struct {
	ID       string `json:"id"`
	Node     string `json:"node-name"`
	Shutting bool   `json:"shutting-down"`
	Name     string `json:"x-name"`
	Size     int64  `json:"x-size"`
	Writable bool   `json:"x-writable"`
	Clients  int    `json:"x-clients"`
	InFlight int64  `json:"x-in-flight"`
	IOThread string `json:"x-iothread"`
	Throttle string `json:"x-throttle-group"`
	drainedAnswer
}

type nodeAnswer struct {
	Path     string      `json:"x-path"`
	File     string      `json:"file"`
	Name     string      `json:"node-name"`
	ReadOnly bool        `json:"ro"`
	Driver   string      `json:"drv"`
	Image    imageAnswer `json:"image"`
	// Health is of storage that may be out of reach; nil = of other.
	Health *healthAnswer `json:"x-health"`
}

type healthAnswer struct {
	OK        bool   `json:"ok"`
	Refuses   bool   `json:"refuses-writes"`
	Reason    string `json:"reason"`
	SinceMS   int64  `json:"since-ms"`
	Timeout   int64  `json:"timeout"`
	Incidents struct {
		Reconnects uint64 `json:"reconnects"`
		Repeats    uint64 `json:"repeated-calls"`
		Replays    uint64 `json:"replays"`
	} `json:"incidents"`
}

type imageAnswer struct {
	Filename  string           `json:"filename"`
	Format    string           `json:"format"`
	Size      int64            `json:"virtual-size"`
	Snapshots []snapshotAnswer `json:"snapshots"`
	Backing   *imageAnswer     `json:"backing-image"`
}

type snapshotAnswer struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	VMStateBytes uint64 `json:"vm-state-size"`
	Seconds      int64  `json:"date-sec"`
	Nanoseconds  int64  `json:"date-nsec"`
}

type clientAnswer struct {
	ID        uint64 `json:"id"`
	Export    string `json:"export"`
	Peer      string `json:"peer"`
	Seconds   int64  `json:"connected-seconds"`
	InFlight  int    `json:"in-flight"`
	Requests  uint64 `json:"requests"`
	Failed    uint64 `json:"failed"`
	Read      uint64 `json:"bytes-read"`
	Written   uint64 `json:"bytes-written"`
	Receiving string `json:"receiving"`
	Held      bool   `json:"held"`
	Leaving   bool   `json:"leaving"`
	Sending   bool   `json:"does-not-read"`
}

type requestAnswer struct {
	Export string `json:"export"`
	Node   string `json:"node"`
	Client string `json:"client"`
	Op     string `json:"op"`
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	AgeUS  int64  `json:"age-us"`
	Held   bool   `json:"held"`
	By     string `json:"by"`
}

type drainAnswer struct {
	ID       string          `json:"id"` // null is ""
	Why      string          `json:"why"`
	Phase    string          `json:"phase"`
	Exports  []string        `json:"exports"`
	Nodes    []string        `json:"nodes"`
	AgeMS    int64           `json:"age-ms"`
	LeaseMS  int64           `json:"lease-ms"`
	SettleUS int64           `json:"settle-us"`
	WaitsFor []culpritAnswer `json:"waits-for"`
	Waiting  int             `json:"waiting"`
}

type culpritAnswer struct {
	requestAnswer
	What string `json:"what"`
}

type objectAnswer struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// The types of objects that ctl looks for.
const (
	typeIOThread = "child<iothread>"
	typeGroup    = "child<throttle-group>"
)

// errorDetail is what an error of the server says to programs.
type errorDetail struct {
	Reason   string          `json:"reason"`
	Culprits []culpritAnswer `json:"culprits"`
	Where    string          `json:"where"`
}

func (d *errorDetail) read(err error) {
	if more, ok := errors.AsType[*qmp.Detailed](err); ok {
		if text, ok := more.Detail.(json.RawMessage); ok {
			_ = json.Unmarshal(text, d) // what does not fit is not known
		}
	}
}

// query asks for something and returns it both as it came and read into result.
func (m *monitor) query(command string, args, result any) (json.RawMessage, error) {
	var raw json.RawMessage
	if err := m.ask(command, args, &raw); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return nil, fmt.Errorf("the answer to %s: %w", command, err)
	}
	return raw, nil
}

func (m *monitor) exports() (list []exportAnswer, err error) {
	_, err = m.query("query-block-exports", nil, &list)
	return list, err
}

func (m *monitor) nodes() (list []nodeAnswer, err error) {
	_, err = m.query("query-named-block-nodes", map[string]bool{"flat": true}, &list)
	return list, err
}

func (m *monitor) objects(kind string) (names []string, err error) {
	var list []objectAnswer
	_, err = m.query("qom-list", map[string]string{"path": "/objects"}, &list)
	for _, o := range list {
		if o.Type == kind {
			names = append(names, o.Name)
		}
	}
	return names, err
}

// target is what EXPORT|NODE on the command line has named.
type target struct {
	export *exportAnswer // nil = a node
	node   string
}

// target finds an export by its id or its name, or else a node.
func (m *monitor) target(name string) (target, error) {
	exports, err := m.exports()
	if err != nil {
		return target{}, err
	}
	if e := exportNamed(exports, name); e != nil {
		return target{e, e.Node}, nil
	}
	nodes, err := m.nodes()
	if err != nil {
		return target{}, err
	}
	var known []string
	for i := range exports {
		known = append(known, printable(exports[i].ID))
	}
	for i := range nodes {
		if nodes[i].Name == name {
			return target{node: name}, nil
		}
		known = append(known, printable(nodes[i].Name))
	}
	return target{}, notFound("%s: there is no such export or node; there are %s", printable(name), listed(known))
}

// export finds an export by its id or its name.
func (m *monitor) export(name string) (*exportAnswer, error) {
	exports, err := m.exports()
	if err != nil {
		return nil, err
	}
	if e := exportNamed(exports, name); e != nil {
		return e, nil
	}
	var known []string
	for i := range exports {
		known = append(known, printable(exports[i].ID))
	}
	return nil, notFound("%s: there is no such export; there are %s", printable(name), listed(known))
}

func exportNamed(exports []exportAnswer, name string) *exportAnswer {
	for i := range exports {
		if exports[i].ID == name {
			return &exports[i]
		}
	}
	for i := range exports {
		if exports[i].Name == name {
			return &exports[i]
		}
	}
	return nil
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
