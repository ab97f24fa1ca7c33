package control

import (
	"context"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

type jobInfo struct {
	ID     string `json:"id"`
	Type   string `json:"type"`
	Status string `json:"status"`
	// Done and Total are 1 when a job has come to its end: those that there are have nothing to count.
	Done  int64  `json:"current-progress"`
	Total int64  `json:"total-progress"`
	Error string `json:"error,omitempty"`
}

// queryJobs lists the jobs, also those that are concluded and not dismissed.
func (p *Plane) queryJobs(context.Context, *qmp.Call) (any, error) {
	list := []jobInfo{}
	for _, j := range p.jobs.All() {
		info := jobInfo{ID: j.ID(), Type: j.Type(), Status: j.Status().String(), Total: 1}
		if j.Status() == blockcore.JobConcluded {
			info.Done = 1
			if err := j.Err(); err != nil {
				info.Error = qmp.ErrorOf(err).Desc
			}
		}
		list = append(list, info)
	}
	return list, nil
}

// queryBlockJobs lists the jobs that work on nodes. There are none yet.
func (p *Plane) queryBlockJobs(context.Context, *qmp.Call) (any, error) { return []any{}, nil }

type jobArgs struct {
	ID string `qmp:"id"`
}

// jobVerb is the handler of a command to a job.
func (p *Plane) jobVerb(v blockcore.JobVerb) qmp.Handler {
	return qmp.With(func(_ context.Context, _ *qmp.Call, a *jobArgs) (any, error) {
		j, err := p.jobs.Find(a.ID)
		if err != nil {
			return nil, err
		}
		return nil, j.Do(v)
	})
}

// endJobs cancels what runs and waits for its end; it forgets what is concluded.
func (p *Plane) endJobs() {
	for _, j := range p.jobs.All() {
		_ = j.Do(blockcore.JobCancel) // it may be too late for that
		<-j.Concluded()
		_ = j.Do(blockcore.JobDismiss)
	}
}
