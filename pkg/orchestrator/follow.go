package orchestrator

import (
	"github.com/orch-dev/orch/pkg/api"
)

// follow draws the conclusions of what was reported of one task, of its node
// and of the nodes' acknowledgements. They do not depend on its service.
func (p *planner) follow(t *task) {
	node := p.Snapshot.Nodes[t.NodeID]
	if p.unfenced(t, node) {
		return
	}
	if t.NodeID != "" && node == nil {
		if t.Status.State == api.TaskComplete && p.Snapshot.Services[t.ServiceID] != nil {
			t.outlive(p.Now)
		} else {
			t.deleted = true // with its node
		}
		return
	}
	placed := t.NodeID != "" && t.Status.State != api.TaskPending
	if placed && node.State == api.NodeDown && !t.Status.State.Terminal() {
		status := &t.edit().Status
		status.State = api.TaskOrphaned
		status.Message = "node " + node.Hostname + " was lost"
		status.At = p.Now
		t.Note(p.Now, "given up: "+status.Message)
	}
	switch {
	case t.Status.State.Terminal():
		p.bury(t)
	case t.Desired == api.DesiredRun && t.Status.State == api.TaskRunning && isPending(t.Endpoint):
		t.setEndpoint(api.EndpointReady)
		t.ReadySince = p.Now
		t.Note(p.Now, "ready: the nodes send it connections")
	case t.Desired == api.DesiredDrain && p.drained(t):
		e := t.edit()
		e.Desired = api.DesiredStop
		e.Note(p.Now, "told to stop: no node sends it new connections any more")
	}
}

// bury takes the endpoint of a task that has ended, and has its agent remove
// what is left of it: at once, or when its lost node comes back.
func (p *planner) bury(t *task) {
	if t.Endpoint.State != api.EndpointGone {
		t.setEndpoint(api.EndpointGone)
	}
	if t.Desired != api.DesiredRemove {
		e := t.edit()
		e.Desired, e.EndedAt = api.DesiredRemove, p.Now
	}
}

// setEndpoint moves the endpoint on. The store stamps since when it holds.
func (t *task) setEndpoint(state api.EndpointState) {
	e := &t.edit().Endpoint
	e.State, e.Since = state, 0
}

func isPending(e api.Endpoint) bool {
	return e.State == api.EndpointPending || e.State == ""
}

// acknowledged reports whether every live node has put the state of the task's
// endpoint into its kernel.
func (p *planner) acknowledged(t *task) bool {
	return t.Endpoint.Since != 0 && p.Acked >= t.Endpoint.Since
}
