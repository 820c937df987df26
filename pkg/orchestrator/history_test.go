package orchestrator_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// A task tells what happened to it from the first to the last.
func TestHistory(t *testing.T) {
	c := newCluster(2)
	c.service("web", nil)
	c.settle(func() {})
	first := api.Sorted(c.snap.Tasks)[0]
	c.changeNode(first.NodeID, func(n *api.Node) { n.Availability = api.AvailabilityDrain })
	c.settle(func() {})
	var got [][]string
	for _, task := range api.Sorted(c.snap.Tasks) {
		var events []string
		for _, e := range task.History {
			events = append(events, e.What)
		}
		got = append(got, events)
	}
	want := [][]string{{
		"made",
		"placed on host0: 2 of 2 nodes suited, it had 0 of this service and 0 tasks in all",
		"ready: the nodes send it connections",
		"to get no new connections, and then to stop: node host0 is drained",
		"told to stop: no node sends it new connections any more",
	}, {
		"made: node host0 is drained",
		"placed on host1: 1 of 2 nodes suited, it had 0 of this service and 0 tasks in all",
		"ready: the nodes send it connections",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("histories (-want +got):\n%s", diff)
	}
	if !slices.IsSortedFunc(first.History, func(a, b api.Event) int { return a.At.Compare(b.At) }) {
		t.Error("not in order")
	}
}
