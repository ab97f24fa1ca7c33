package blocktest

import (
	"context"
	"strings"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
)

// worker is the body of a job of scripts: it is ready at once and works, a millisecond at a time, until it is told to complete.
type worker struct {
	// Immutable.
	stage   *stage
	fails   string   // "run", "prepare"
	detach  []string // nodes that lose their backing file when the job is committed
	flushes string   // the node that every step of the end flushes
}

func (w *worker) Run(t *blockcore.Task, j *blockcore.Job) error {
	if j.Status() == blockcore.JobRunning {
		j.Ready()
	}
	for !j.Completing() {
		if err := j.Sleep(t, time.Millisecond); err != nil {
			return err
		}
	}
	if w.fails == "run" {
		return syscall.EIO
	}
	return nil
}

// flush waits for a loop, as QEMU's hooks do in a nested one.
func (w *worker) flush(when string) {
	n := w.stage.node(w.flushes)
	err := n.Context().Do(func(t *blockcore.Task) error {
		return w.stage.layers[w.flushes].Flush(t)
	})
	w.stage.log.Add("%s: %s", when, outcome(err))
}

func (w *worker) Prepare() error {
	w.flush("prepare")
	if w.fails == "prepare" {
		return syscall.EIO
	}
	return nil
}

func (w *worker) Commit() {
	w.flush("commit")
	for _, name := range w.detach {
		w.stage.detach(line{operands: []string{name, "backing"}})
	}
	w.stage.calmLoops()
}

func (w *worker) Abort() { w.flush("abort") }

// addJob is: job ID NODE... [fails=run|prepare] [detach=NODE,NODE] [unshare=write,resize] [manual] [idle].
func (s *stage) addJob(l line) {
	w := &worker{stage: s, fails: l.options["fails"], flushes: l.operands[1]}
	if l.has("detach") {
		w.detach = strings.Split(l.options["detach"], ",")
	}
	o := blockcore.JobOptions{ID: l.operands[0], Type: "test", Body: w, ManualFinalize: l.has("manual"), ManualDismiss: l.has("manual")}
	for _, name := range l.operands[1:] {
		o.Nodes = append(o.Nodes, blockcore.JobNode{Node: s.node(name), Unshared: l.unshared()})
	}
	j, err := s.jobs.New(context.Background(), o)
	if err != nil {
		s.sayError("job", err)
		return
	}
	s.jobNames[j.ID()] = j
	if !l.has("idle") {
		s.sayError("job", j.Start())
	}
}

// askJob is: ask ID start|cancel|pause|resume|complete|finalize|dismiss|wait.
func (s *stage) askJob(l line) {
	j, known := s.jobNames[l.operands[0]]
	if !known {
		_, err := s.jobs.Find(l.operands[0])
		s.sayError("ask", err)
		return
	}
	switch word := l.operands[1]; word {
	case "start":
		s.sayError("ask", j.Start())
	case "wait":
		err := j.Wait(context.Background())
		s.said = append(s.said, j.ID()+": "+outcome(err))
	default:
		for v := blockcore.JobCancel; v <= blockcore.JobDismiss; v++ {
			if v.String() == word {
				s.sayError("ask", j.Do(v))
			}
		}
	}
}

// listJobs says where each job is, and how many have paused it.
func (s *stage) listJobs(line) {
	for _, j := range s.jobs.All() {
		s.say("job %s is %v, pauses=%d busy=%v", j.ID(), j.Status(), j.Pauses(), j.Roots()[0].Busy())
	}
}
