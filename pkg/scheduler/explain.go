package scheduler

import (
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Opinion is what the scheduler holds of one node for one task.
type Opinion struct {
	Node   *api.Node
	Filter string // which filter refused it; empty: it can run the task
	Reason string // what the filter has against it, to be read after its name
}

// Explain asks the filters about every node, in the order of their IDs, for the
// task as it is. It is nil for a task whose service is gone.
func Explain(snap *api.Snapshot, t *api.Task, now time.Time) []Opinion {
	svc := snap.Services[t.ServiceID]
	if svc == nil {
		return nil
	}
	p := newPlanner(newIndex(snap), now)
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
			o.Filter, o.Reason = filterNames[v.filter], v.sentence()
		}
		opinions = append(opinions, o)
	}
	return opinions
}

// Refusals says what the filters have against a node for another task of each
// service; nothing of services that it suits.
func Refusals(snap *api.Snapshot, node api.NodeID, now time.Time) map[api.ServiceID]string {
	p := newPlanner(newIndex(snap), now)
	i, known := p.position[node]
	if !known {
		return nil
	}
	probes := probesOf(api.Sorted(snap.Services))
	out := map[api.ServiceID]string{}
	for _, t := range probes {
		f := p.fit(snap.Services[t.ServiceID])
		f.about(&t.Spec)
		if v := f.verdictOf(t, f.homeOf(t), i); v != nil {
			out[t.ServiceID] = v.sentence()
		}
	}
	return out
}
