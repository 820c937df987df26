package scheduler

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Opinion is what the scheduler holds of one node for one task.
type Opinion struct {
	Node   *api.Node
	Reason string // why it cannot run the task; empty: it can
}

// Explain asks the filters about every node, in the order of their IDs, for the
// task as it is. It is nil for a task whose service is gone.
func Explain(snap *api.Snapshot, t *api.Task, now time.Time) []Opinion {
	svc := snap.Services[t.ServiceID]
	if svc == nil {
		return nil
	}
	p := newPlanner(snap, now)
	p.load([]*api.Task{t})
	f := p.fit(svc)
	f.about(&t.Spec)
	var at *home
	if t.NodeID == "" {
		at = f.homeOf(t)
	}
	var opinions []Opinion
	for i, n := range f.nodes {
		o := Opinion{Node: n}
		if v := f.verdictOf(t, at, i); v != nil {
			o.Reason = v.sentence()
		}
		opinions = append(opinions, o)
	}
	return opinions
}
