//go:build !race && !check

package model

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var large = flag.Bool("large", false, "check larger bounds as well: minutes and gigabytes")

// stuck is how pan reports a run that ends although a process waits: a lost wake-up, a deadlock, a request that never runs.
const stuck = "invalid end state"

// sound are the scenes in which the protocol must hold.
var sound = []struct {
	name    string
	defines string
	large   bool
}{
	{"sections nest and overlap", "SCENE=1 Q0=2 WORK=1", false},
	{"graph change", "SCENE=2 Q0=1 Q2=1", false},
	{"graph change, bell rung instead of looking under the mutex", "SCENE=2 Q0=1 Q2=1 LOOK_AFTER_UNLOCK RING_AT_CHANGE", false},
	{"two loops", "SCENE=3 Q0=1 Q1=1", false},
	{"one export stored on another", "SCENE=4 Q0=1 Q1=1", false},
	{"a Task wants a drain", "SCENE=5 Q0=1 Q2=1", false},
	{"deadline", "SCENE=6 Q0=1 Q1=1 DEADLINE", false},
	{"graph change onto a drained node", "SCENE=7 Q0=2", false},

	{"sections nest and overlap, large", "SCENE=1 Q0=3 WORK=1", true},
	{"sections nest and overlap, two Roots, large", "SCENE=1 Q0=2 Q2=1 WORK=1", true},
	{"graph change, large", "SCENE=2 Q0=2 Q2=1 WORK=1", true},
	{"two loops, large", "SCENE=3 Q0=2 Q1=2", true},
	{"one export stored on another, large", "SCENE=4 Q0=2 Q1=2", true},
	{"a Task wants a drain, large", "SCENE=5 Q0=2 Q2=1 WORK=1", true},
	{"deadline, large", "SCENE=6 Q0=2 Q1=1 DEADLINE", true},
	{"graph change onto a drained node, large", "SCENE=7 Q0=2 Q2=1", true},
}

// broken take one rule each out of the protocol. What must be found is the start of pan's message.
var broken = []struct {
	defines string
	want    string
}{
	// P1: nothing runs where a section has settled.
	{"BREAK_ADMIT_WITHOUT_CHECK SCENE=1 Q0=2", "P1"},
	{"BREAK_NO_ACK SCENE=1 Q0=2", "P1"},
	{"BREAK_ACK_ONLY_OF_CHANGED SCENE=1 Q0=2", "P1"},
	{"BREAK_RESUME_UNCOUNTED SCENE=1 Q0=2", "P1"},
	{"BREAK_COUNT_BEFORE_REPLY SCENE=1 Q0=2", "P1"},
	{"BREAK_READ_CHILDREN_FIRST SCENE=1 Q0=2 WORK=1", "P1"},
	{"BREAK_TIMER_STAYS_ARMED SCENE=1 Q0=2 WORK=1", "P1"},
	{"BREAK_ARM_WHILE_STILL SCENE=1 Q0=2 WORK=1", "P1"},
	{"BREAK_WORK_UNCOUNTED SCENE=1 Q0=2 WORK=1", "P1"},
	{"BREAK_TARGET_NOT_COVERED SCENE=2 Q0=2", "P1"},

	// P2: no wake-up is lost.
	{"BREAK_KICK_BEFORE_DECREMENT SCENE=1 Q0=2", stuck},
	{"BREAK_BELL_AFTER_CHECK SCENE=1 Q0=2", stuck},
	{"BREAK_RING_WAKES_ONE SCENE=1 Q0=2", stuck},
	{"BREAK_NODES_ARE_SILENT SCENE=1 Q0=2 WORK=1", stuck},
	{"BREAK_STALE_COVER SCENE=2 Q0=1 Q2=1", stuck},
	{"BREAK_STALE_COVER RING_AT_CHANGE SCENE=2 Q0=1 Q2=1", stuck},
	{"LOOK_AFTER_UNLOCK SCENE=2 Q0=1 Q2=1", stuck},

	// P3: what was held back runs, in order, ahead of later arrivals.
	{"BREAK_RESUME_LIFO SCENE=1 Q0=2", "P3"},
	{"BREAK_NEWCOMERS_FIRST SCENE=1 Q0=2", "P3"},
	{"BREAK_HELD_FORGOTTEN SCENE=1 Q0=1", stuck},

	// P4: counts balance, callbacks fire on 0->1 and 1->0 only.
	{"BREAK_END_TWICE SCENE=1 Q0=2", "P4"},
	{"BREAK_CALLBACK_NESTED SCENE=1 Q0=2", "P4"},
	{"BREAK_POST_AFTER_UNLOCK SCENE=1 Q0=2", "P4"},

	// P5: controllers and loops do not wait for one another in a circle.
	{"BREAK_WAIT_HOLDING_MUTEX SCENE=4 Q0=1 Q1=1", stuck},
	{"BREAK_HELD_STAYS_COUNTED SCENE=3 Q0=1 Q1=1", "P1|" + stuck},
	{"BREAK_TASK_COUNTED SCENE=5 Q0=1 Q2=1", stuck},
	{"BREAK_TASK_BLOCKS_LOOP SCENE=5 Q0=1 Q2=1", stuck},
	{"SCENE=6 Q0=1 Q1=1", stuck}, // no deadline, and the drain waits for what it holds back itself
}

// Goal: the drain protocol has properties P1 to P5 (README.md). Method: spin's checker visits every state of each scene.
func TestProtocolHolds(t *testing.T) {
	for _, scene := range sound {
		if scene.large && !*large {
			continue
		}
		t.Run(scene.name, func(t *testing.T) {
			if !scene.large {
				t.Parallel()
			}
			if found := verify(t, scene.defines, "-DSAFETY"); found != "" {
				t.Errorf("%s: %s", scene.defines, found)
			}
		})
	}
}

// Goal: that no run gets stuck means that every run ends. Method: the checker looks for cycles; the model has no progress labels, so
// that every cycle counts.
func TestEveryRunEnds(t *testing.T) {
	for _, defines := range []string{"SCENE=1 Q0=2", "SCENE=2 Q0=1", "SCENE=5 Q0=1"} {
		t.Run(defines, func(t *testing.T) {
			t.Parallel()
			if found := verify(t, defines, "-DNP", "-l"); found != "" {
				t.Errorf("%s", found)
			}
		})
	}
}

// Goal: the model can see what it is there to see. Method: with one rule of the protocol taken out, the checker must find what the rule prevents.
func TestBrokenProtocolIsFoundOut(t *testing.T) {
	source, err := os.ReadFile("drain.pml")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range broken {
		t.Run(strings.Fields(one.defines)[0], func(t *testing.T) {
			t.Parallel()
			found := verify(t, one.defines, "-DSAFETY")
			if !regexp.MustCompile(one.want).MatchString(found) {
				t.Errorf("%s: found %q, want %s", one.defines, found, one.want)
			}
		})
	}
	tested := regexp.MustCompile(`BREAK_\w+`)
	known := map[string]bool{}
	for _, one := range broken {
		for _, name := range tested.FindAllString(one.defines, -1) {
			known[name] = true
		}
	}
	for _, name := range tested.FindAllString(string(source), -1) {
		if !known[name] && name != "BREAK_" {
			t.Errorf("no test breaks the model by %s", name)
		}
	}
}

// verify builds the checker for one scene, runs it to the end or the first violation, and returns pan's message about that.
func verify(t *testing.T, defines, mode string, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	source, err := filepath.Abs("drain.pml")
	if err != nil {
		t.Fatal(err)
	}
	spin := []string{"-a"}
	for _, name := range strings.Fields(defines) {
		spin = append(spin, "-D"+name)
	}
	command(t, dir, "spin", append(spin, source)...)
	optimize := "-O0" // compiling takes longer than a small search
	if *large {
		optimize = "-O2"
	}
	command(t, dir, "gcc", optimize, "-w", "-DCOLLAPSE", "-DMEMLIM=3000", mode, "-o", "pan", "pan.c")
	begin := time.Now()
	out := command(t, dir, "./pan", append([]string{"-m100000", "-w20"}, options...)...)
	for _, sign := range []string{"error: max search depth", "Search not completed", "reached -DMEMLIM"} {
		if strings.Contains(out, sign) && !strings.Contains(out, "pan:1:") {
			t.Fatalf("the search is not whole:\n%s", out)
		}
	}
	states := regexp.MustCompile(`(\d+) states, stored`).FindStringSubmatch(out)
	if states == nil {
		t.Fatalf("pan did not say how many states it stored:\n%s", out)
	}
	t.Logf("%s: %s states in %.1f s", defines, states[1], time.Since(begin).Seconds())
	_, found, _ := strings.Cut(out, "pan:1: ")
	found, _, _ = strings.Cut(found, "\n")
	return found
}

// command runs one program of the tool chain in dir and returns what it said.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}
