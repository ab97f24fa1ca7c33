package blocktest

import (
	"slices"
	"strings"
)

// command is a word of scripts. A word name=value behind it is an option, one without a sign an operand or a flag; "as
// NAME" and "under NAME" name a section or a request; "&" does not wait.
type command func(s *stage, l line)

// commands are all there are. Those without a comment here have one where they are defined.
var commands = map[string]command{
	// Loops: loop NAME, stop LOOP. There is one called main from the beginning.
	"loop": func(s *stage, l line) { s.newLoop(l.operands[0]) },
	"stop": (*stage).stopLoop,

	// The graph: close ROOT, remove NODE.
	"node":    (*stage).addNode,
	"root":    (*stage).addRoot,
	"close":   func(s *stage, l line) { s.root(l.operands[0]).Close() },
	"remove":  func(s *stage, l line) { s.sayError("remove", s.graph.RemoveNode(s.node(l.operands[0]))) },
	"attach":  (*stage).attach,
	"detach":  (*stage).detach,
	"replace": (*stage).replace,
	"append":  (*stage).appendNode,
	"move":    (*stage).move,
	"movable": (*stage).movable,
	"resize":  (*stage).resize,
	"select":  (*stage).selectChild,

	// Requests: read ROOT as NAME, write and flush likewise. hold NODE keeps those that reach the node until release NODE; fail NODE OP ERRNO
	// has an operation fail from now on, with ok no more.
	"read":    func(s *stage, l line) { s.ask("read", l) },
	"write":   func(s *stage, l line) { s.ask("write", l) },
	"flush":   func(s *stage, l line) { s.ask("flush", l) },
	"hold":    func(s *stage, l line) { s.layers[l.operands[0]].gate.Close() },
	"release": func(s *stage, l line) { s.layers[l.operands[0]].gate.Open() },
	"fail":    func(s *stage, l line) { s.layers[l.operands[0]].Fail(l.operands[1], s.errnoOf(l.operands[2])) },
	"later":   (*stage).later,

	// Sections: wait NAME for a drain that was begun with "&", end NAME.
	"drain": (*stage).drain,
	"wait":  func(s *stage, l line) { s.sayDrained(l.operands[0]) },
	"end":   func(s *stage, l line) { s.covering(l.operands[0]).End() },

	// Jobs.
	"job": (*stage).addJob,
	"ask": (*stage).askJob,

	// What there is.
	"counts":   (*stage).counts,
	"graph":    (*stage).drawGraph,
	"where":    (*stage).where,
	"requests": (*stage).listRequests,
	"jobs":     (*stage).listJobs,
}

// line is what stands behind a command.
type line struct {
	operands []string
	options  map[string]string
	as       string
	under    string
	behind   bool
}

// flags are options without a value.
var flags = []string{"exclusive", "lax", "park", "prompt", "work", "main-only", "implicit", "writable", "mover", "movable", "idle", "manual"}

func parseLine(words []string) line {
	l := line{options: map[string]string{}}
	for i := 0; i < len(words); i++ {
		name, value, isOption := strings.Cut(words[i], "=")
		switch {
		case words[i] == "as":
			i++
			l.as = words[i]
		case words[i] == "under":
			i++
			l.under = words[i]
		case words[i] == "&":
			l.behind = true
		case isOption:
			l.options[name] = value
		case slices.Contains(flags, words[i]):
			l.options[words[i]] = "yes"
		default:
			l.operands = append(l.operands, words[i])
		}
	}
	return l
}

func (l line) has(flag string) bool { return l.options[flag] != "" }
