package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// whyState is a service with a task that runs, one that waits and one that
// failed before it, on nodes of which one is drained and one is down.
func whyState() *api.Snapshot {
	snap := state()
	svc := snap.Services["web"]
	svc.Spec.Placement.Constraints = []api.Constraint{{Key: "node.labels.disk", Op: api.OpEqual, Value: "fast"}}
	node := func(id api.NodeID, name, disk string) *api.Node {
		return &api.Node{ID: id, Hostname: name, State: api.NodeReady, Availability: api.AvailabilityActive, Labels: map[string]string{"disk": disk}}
	}
	snap.Nodes = map[api.NodeID]*api.Node{
		"a1": node("a1", "n1", "fast"), "b2": node("b2", "n2", "slow"), "c3": node("c3", "n3", "slow"), "d4": node("d4", "n4", "fast"),
	}
	snap.Nodes["a1"].Availability, snap.Nodes["d4"].State = api.AvailabilityDrain, api.NodeDown
	task := func(id api.TaskID, slot int, node api.NodeID, state api.TaskState, created api.Index, happened ...string) *api.Task {
		t := &api.Task{
			Meta: api.Meta{Created: created}, ID: id, ServiceID: "web", ServiceName: "blog_web", Slot: slot, NodeID: node,
			SpecVersion: 5, Desired: api.DesiredRun, Status: api.TaskStatus{State: state, At: t0.Add(-time.Minute)},
		}
		for _, what := range happened {
			t.Note(t0, what)
		}
		return t
	}
	failed := task("failed", 2, "a1", api.TaskFailed, 1, "made", "placed on n1: 2 of 4 nodes suited", "failed: exited with code 3")
	failed.Status.Message, failed.Desired = "exited with code 3\nlast words", api.DesiredRemove
	waits := task("waits", 2, "", api.TaskPending, 2, "made: the last task failed")
	waits.Reason = "no suitable node: 1 not ready, 1 drained, 2 do not satisfy node.labels.disk==fast"
	runs := task("runs", 1, "a1", api.TaskRunning, 1, "made", "placed on n1: 2 of 4 nodes suited")
	snap.Tasks = map[api.TaskID]*api.Task{"failed": failed, "waits": waits, "runs": runs}
	return snap
}

// told is what an answer says, as text.
func told(why *api.Why) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n", why.Kind, why.Name, why.State)
	for _, r := range why.Reasons {
		fmt.Fprintf(&b, "because %s\n", r)
	}
	for _, f := range why.Filters {
		fmt.Fprintf(&b, "%s refuses %d: %s\n", f.Filter, f.Nodes, f.Reason)
	}
	for _, e := range why.History {
		fmt.Fprintf(&b, "then %s\n", e.What)
	}
	for i := range why.Tasks {
		fmt.Fprintf(&b, "- %s", told(&why.Tasks[i]))
	}
	for _, s := range why.Services {
		fmt.Fprintf(&b, "without %s %s\n", s.Service, s.Reason)
	}
	return b.String()
}

func TestWhy(t *testing.T) {
	tests := []struct{ name, asked, want string }{
		{"a task that waits", "blog_web.2", `task blog_web.2: waits for a node
because no suitable node: 1 not ready, 1 drained, 2 do not satisfy node.labels.disk==fast
constraint refuses 2: does not satisfy node.labels.disk==fast
availability refuses 1: is drained
ready refuses 1: is not ready
then made: the last task failed
`},
		{"a task that failed", "fail", `task blog_web.2: failed on n1, for 1m0s
because exited with code 3
last words
because placed on n1: 2 of 4 nodes suited
then made
then placed on n1: 2 of 4 nodes suited
then failed: exited with code 3
`},
		{"a service", "blog_web", `service blog_web: 1 of 2 tasks run
because blog_web.2: exited with code 3
last words
- task blog_web.1: running on n1, for 1m0s
because placed on n1: 2 of 4 nodes suited
then made
then placed on n1: 2 of 4 nodes suited
- task blog_web.2: waits for a node
because no suitable node: 1 not ready, 1 drained, 2 do not satisfy node.labels.disk==fast
constraint refuses 2: does not satisfy node.labels.disk==fast
availability refuses 1: is drained
ready refuses 1: is not ready
then made: the last task failed
`},
		{"a node with tasks", "n1", "node n1: drained: its tasks move elsewhere (`orch node update --availability active` ends that)\n" + `- task blog_web.1: running on n1, for 1m0s
because placed on n1: 2 of 4 nodes suited
`},
		{"a node without", "n2", `node n2: ready, and takes tasks
without blog_web does not satisfy node.labels.disk==fast
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			snap := whyState()
			for id := range snap.Services {
				if id != "web" {
					delete(snap.Services, id)
				}
			}
			why, err := explainName(snap, tt.asked, 100, t0)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, told(why)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if _, err := explainName(whyState(), "nothing", 100, t0); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("an unknown name: %v", err)
	}
}
