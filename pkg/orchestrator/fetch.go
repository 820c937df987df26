package orchestrator

import (
	"fmt"
	"reflect"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Where a task is stopped before the next one starts, its node gets the next
// one's image first: it is where the next one goes, as a rule. The nodes of all
// tasks that will have their turn are asked at the begin of an update.

// fetched reports whether a stale task may be stopped, as far as the image of
// what takes its place goes. If its node was not asked for it yet, it is.
func (p *planner) fetched(svc *api.Service, old *task) bool {
	spec := &svc.Spec.Task
	node := p.Snapshot.Nodes[old.NodeID]
	same := spec.Image == old.Spec.Image && reflect.DeepEqual(spec.Pin, old.Spec.Pin)
	if same || !isOutdated(svc, old) || node == nil || node.State != api.NodeReady {
		return true
	}
	round := fetchRound(svc)
	if old.Fetch == nil || old.Fetch.Round != round {
		e := old.edit()
		e.Fetch = &api.Fetch{Round: round, Image: spec.Image, Pin: spec.Pin, RegistryAuth: spec.RegistryAuth}
		e.Note(p.Now, "its node gets the image "+spec.Image+" before it is stopped")
		return false
	}
	if old.Status.Fetched != round {
		return false
	}
	_, failed := p.fetchFailure(svc, old)
	return failed == ""
}

// fetchRound tells the requests of an update from those before it was resumed.
func fetchRound(svc *api.Service) int64 {
	if svc.Update == nil {
		return int64(svc.SpecVersion)
	}
	return svc.Update.Since.UnixNano()
}

// fetchDue is until when an image must have come.
func fetchDue(svc *api.Service) time.Time {
	if svc.Update == nil {
		return time.Time{}
	}
	return svc.Update.Since.Add(svc.Spec.Deadline())
}

// fetchFailure says why an update has failed in a slot whose old task serves on,
// because the image of the new one does not come; "" if it may come still.
func (p *planner) fetchFailure(svc *api.Service, old *task) (at time.Time, why string) {
	f := old.Fetch
	if f == nil || f.Round != fetchRound(svc) || !isOutdated(svc, old) {
		return at, ""
	}
	switch due := fetchDue(svc); {
	case old.Status.Fetched == f.Round && old.Status.FetchError != "":
		return svc.Update.Since, fmt.Sprintf("%s goes on with the old image: %s", p.called(old), old.Status.FetchError)
	case old.Status.Fetched != f.Round && !due.After(p.Now):
		return due, fmt.Sprintf("%s goes on with the old image: %s did not come within %v", p.called(old), f.Image, svc.Spec.Deadline())
	}
	return at, ""
}
