package orchestrator_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orch-dev/orch/pkg/api"
)

// world is what really runs, beside what a cluster knows of it: a container on a
// node that cannot be reached goes on until that node's fence closes.
type world struct {
	*cluster
	fence, wait time.Duration
	sent        map[api.NodeID]time.Time // the last report that the leader accepted
	cut         map[api.NodeID]bool
	runs        map[api.TaskID]api.NodeID
}

// end stops what nodes stop by themselves.
func (w *world) end() {
	for id, n := range w.runs {
		if w.now.Sub(w.sent[n]) >= w.fence {
			delete(w.runs, id)
		}
	}
}

// report has the nodes that can be reached say and do what they should.
func (w *world) report() {
	for id, n := range w.snap.Nodes {
		if w.cut[id] {
			if n.State == api.NodeReady && w.now.Sub(w.sent[id]) > w.fence/3 {
				w.changeNode(id, func(n *api.Node) { n.State = api.NodeDown })
			}
			continue
		}
		w.sent[id] = w.now
		if n.State != api.NodeReady {
			w.changeNode(id, func(n *api.Node) { n.State = api.NodeReady })
		}
	}
	for _, t := range api.Sorted(w.snap.Tasks) {
		if w.cut[t.NodeID] || w.snap.Nodes[t.NodeID] == nil {
			continue
		}
		_, running := w.runs[t.ID]
		status, ok := w.next(t)
		switch {
		case t.Status.State == api.TaskRunning && !running && t.Desired == api.DesiredRun:
			status, ok = api.TaskStatus{State: api.TaskFailed, Message: "its node ended it"}, true
		case ok && status.State == api.TaskStarting:
			w.runs[t.ID] = t.NodeID
		case ok && (status.State.Terminal() || status.Removed):
			delete(w.runs, t.ID)
		}
		if ok {
			w.cluster.report(t.ID, status)
		}
	}
	for id := range w.runs { // what the cluster does not know any more is removed
		if n := w.runs[id]; !w.cut[n] && w.snap.Tasks[id] == nil {
			delete(w.runs, id)
		}
	}
	for id := range w.snap.Nodes {
		if !w.cut[id] {
			w.acked[id] = w.snap.Index
		}
	}
}

// Whatever is cut off, removed, updated or made anew, never do two tasks of a
// singleton run, and in the end one does.
func TestSingletonsNeverOverlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			cluster: newCluster(3), fence: 12 * time.Second, wait: 15 * time.Second,
			sent: map[api.NodeID]time.Time{}, cut: map[api.NodeID]bool{}, runs: map[api.TaskID]api.NodeID{},
		}
		w.fenced = func(id api.NodeID) bool { return w.now.Sub(w.sent[id]) > w.wait }
		image := "v1"
		deploy := func() {
			w.service("db", func(s *api.ServiceSpec) {
				s.Task.Singleton, s.Task.Image, s.Update.Order = true, image, api.StartFirst
			})
		}
		deploy()
		nodes := 3
		tick := func() {
			w.now = w.now.Add(time.Second)
			w.end()
			for range 4 { // a task is made and started within a second
				w.report()
				w.step()
				if len(w.runs) > 1 {
					t.Fatalf("tasks run at the same time: %v", w.runs)
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "ticks") {
			at := rapid.SampledFrom(api.Sorted(w.snap.Nodes)).Draw(t, "node").ID
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1:
				w.cut[at] = true
			case 2, 3:
				w.cut[at] = false
			case 4:
				image = rapid.SampledFrom([]string{"v1", "v2", "v3"}).Draw(t, "image")
				if w.snap.Services["db"] != nil {
					deploy()
				}
			case 5:
				if w.cut[at] && w.snap.Nodes[at].State == api.NodeDown {
					w.commit([]api.Change{{Node: w.snap.Nodes[at], Delete: true}, {Node: node(nodes)}})
					nodes++
				}
			case 6:
				w.changeNode(at, func(n *api.Node) { n.Availability = api.AvailabilityDrain })
			case 7:
				w.changeNode(at, func(n *api.Node) { n.Availability = api.AvailabilityActive })
			case 8:
				if svc := w.snap.Services["db"]; svc != nil {
					w.commit([]api.Change{{Service: svc, Delete: true}})
				} else {
					deploy()
				}
			}
			for range rapid.IntRange(1, 8).Draw(t, "seconds") {
				tick()
			}
		}
		w.cut = map[api.NodeID]bool{}
		for id := range w.snap.Nodes {
			w.changeNode(id, func(n *api.Node) { n.Availability = api.AvailabilityActive })
		}
		if w.snap.Services["db"] == nil {
			deploy()
		}
		for range 90 {
			tick()
		}
		if len(w.runs) != 1 {
			t.Fatalf("%d tasks run", len(w.runs))
		}
	})
}
