package control

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/scheduler"
)

// Why says why a service, a node or a task is as it is: from what planners wrote
// down when they decided, and for what waits, by asking the filters again.
func (s *Server) Why(_ context.Context, req *api.WhyRequest) (*api.Why, error) {
	snap, now := s.Replica.Snapshot(), s.now()
	why, err := explainName(snap, req.Name, s.Tracker.Acked(snap, s.Now()), now)
	if err != nil {
		return nil, err
	}
	if why.Kind == api.KindNode {
		if seen, _ := s.Tracker.Contact(api.NodeID(why.ID)); !seen.IsZero() {
			why.Reasons = append(why.Reasons, fmt.Sprintf("last heard of %v ago", s.Now().Sub(seen).Round(100*time.Millisecond)))
		}
	}
	why.At = now
	return why, nil
}

func explainName(snap *api.Snapshot, name string, acked api.Index, now time.Time) (*api.Why, error) {
	svc, err := findService(snap, name)
	if err == nil {
		return whyService(snap, svc, acked, now), nil
	}
	node, nodeErr := findNode(snap, name)
	if nodeErr == nil {
		return whyNode(snap, node, now), nil
	}
	task, taskErr := findTask(snap, name)
	if taskErr == nil {
		return whyTask(snap, task, now), nil
	}
	for _, err := range []error{err, nodeErr, taskErr} {
		if api.CodeOf(err) != api.CodeNotFound {
			return nil, err // it is ambiguous
		}
	}
	return nil, api.Errorf(api.CodeNotFound, "no task, service or node is called %q (see `orch service ls`, `orch service ps SERVICE` and `orch node ls`)", name)
}

// findTask finds a task by ID, or unambiguous prefix of it, or the newest of a
// slot by its name.
func findTask(snap *api.Snapshot, ref string) (*api.Task, error) {
	var named *api.Task
	for _, t := range snap.Tasks {
		if taskName(snap, t) == ref && (named == nil || t.Meta.Created > named.Meta.Created) {
			named = t
		}
	}
	if named != nil {
		return named, nil
	}
	return find("task", ref, maps.Values(snap.Tasks), func(t *api.Task) (string, string) { return "", string(t.ID) })
}

// taskName is a task's name with its node's, where that is a part of it.
func taskName(snap *api.Snapshot, t *api.Task) string {
	if n := snap.Nodes[t.NodeID]; t.Slot == 0 && n != nil {
		return t.ServiceName + "." + n.Hostname
	}
	return t.Name()
}

func hostname(snap *api.Snapshot, id api.NodeID) string {
	if n := snap.Nodes[id]; n != nil {
		return n.Hostname
	}
	return "node " + string(id) + ", which was removed"
}

// whyTask tells of one task.
func whyTask(snap *api.Snapshot, t *api.Task, now time.Time) *api.Why {
	why := briefly(snap, t, now)
	why.History = t.History
	if !scheduler.Unplaceable(t) {
		return why
	}
	counts := map[api.FilterCount]int{}
	for _, o := range scheduler.Explain(snap, t, now) {
		why.Nodes = append(why.Nodes, api.NodeOpinion{Node: o.Node.Hostname, Reason: o.Reason})
		if o.Filter != "" {
			counts[api.FilterCount{Filter: o.Filter, Reason: o.Reason}]++
		}
	}
	for count, n := range counts {
		count.Nodes = n
		why.Filters = append(why.Filters, count)
	}
	slices.SortFunc(why.Filters, func(a, b api.FilterCount) int {
		return cmp.Or(b.Nodes-a.Nodes, cmp.Compare(a.Filter, b.Filter), cmp.Compare(a.Reason, b.Reason))
	})
	slices.SortFunc(why.Nodes, func(a, b api.NodeOpinion) int { return cmp.Compare(a.Node, b.Node) })
	return why
}

// briefly says what a task does and what for.
func briefly(snap *api.Snapshot, t *api.Task, now time.Time) *api.Why {
	why := &api.Why{Kind: api.KindTask, ID: string(t.ID), Name: taskName(snap, t)}
	state := t.Status.State
	since := ""
	if !t.Status.At.IsZero() && now.After(t.Status.At) {
		since = fmt.Sprintf(", for %v", now.Sub(t.Status.At).Round(time.Second))
	}
	switch {
	case state == api.TaskPending:
		why.State = "waits for a node"
		if t.NotBefore.After(now) {
			why.State = fmt.Sprintf("waits another %v before it is started", t.NotBefore.Sub(now).Round(100*time.Millisecond))
		}
	case state.Terminal():
		why.State = fmt.Sprintf("%s on %s%s", state, hostname(snap, t.NodeID), since)
	case t.Desired != api.DesiredRun:
		why.State = fmt.Sprintf("%s on %s%s, and on its way out", state, hostname(snap, t.NodeID), since)
	default:
		why.State = fmt.Sprintf("%s on %s%s", state, hostname(snap, t.NodeID), since)
	}
	for _, text := range []string{t.Status.Message, t.Reason, placement(t)} {
		if text != "" && !slices.Contains(why.Reasons, text) {
			why.Reasons = append(why.Reasons, text)
		}
	}
	return why
}

// placement is why the task is where it is, as the scheduler wrote it down.
func placement(t *api.Task) string {
	for _, e := range t.History {
		if strings.HasPrefix(e.What, "placed on ") {
			return e.What
		}
	}
	return ""
}

// whyService tells how far a service is, and of the newest task of each slot.
func whyService(snap *api.Snapshot, svc *api.Service, acked api.Index, now time.Time) *api.Why {
	var tasks []*api.Task
	newest := map[slotKey]*api.Task{}
	for _, t := range api.Sorted(snap.Tasks) {
		if t.ServiceID != svc.ID {
			continue
		}
		tasks = append(tasks, t)
		if last := newest[slotOf(t)]; last == nil || t.Meta.Created > last.Meta.Created {
			newest[slotOf(t)] = t
		}
	}
	status := serviceStatus(snap, svc, tasks, acked)
	why := &api.Why{Kind: api.KindService, ID: string(svc.ID), Name: svc.Spec.Name}
	switch {
	case svc.Spec.Mode.Job():
		why.State = fmt.Sprintf("%d tasks run, %d of %d completed", status.Running, status.Completed, status.Desired)
	default:
		why.State = fmt.Sprintf("%d of %d tasks run", status.Running, status.Desired)
	}
	if status.Reason != "" {
		why.Reasons = append(why.Reasons, status.Reason)
	}
	if u := svc.Update; u != nil {
		why.Reasons = append(why.Reasons, fmt.Sprintf("its last update: %s", u.State))
	}
	for _, t := range newest {
		why.Tasks = append(why.Tasks, *whyTask(snap, t, now))
	}
	sortTasks(why.Tasks)
	return why
}

// sortTasks sorts by name, the tenth slot behind the ninth.
func sortTasks(tasks []api.Why) {
	slices.SortFunc(tasks, func(a, b api.Why) int {
		return cmp.Or(len(a.Name)-len(b.Name), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

// whyNode tells what runs on a node, and of services without a task there why.
func whyNode(snap *api.Snapshot, n *api.Node, now time.Time) *api.Why {
	why := &api.Why{Kind: api.KindNode, ID: string(n.ID), Name: n.Hostname, State: "ready, and takes tasks"}
	switch {
	case n.State != api.NodeReady:
		why.State = "down: nothing was heard of it for as long as its lease is good; its tasks were given up"
	case n.Availability == api.AvailabilityDrain:
		why.State = "drained: its tasks move elsewhere (`orch node update --availability active` ends that)"
	case n.Availability == api.AvailabilityPause:
		why.State = "paused: it keeps its tasks and takes no new ones"
	}
	has := map[api.ServiceID]bool{}
	for _, t := range snap.Tasks {
		if t.NodeID == n.ID && !t.Status.State.Terminal() {
			has[t.ServiceID] = true
			why.Tasks = append(why.Tasks, *briefly(snap, t, now))
		}
	}
	sortTasks(why.Tasks)
	refusals := scheduler.Refusals(snap, n.ID, now)
	for _, svc := range servicesByName(snap, "") {
		if !has[svc.ID] {
			why.Services = append(why.Services, api.ServiceOpinion{Service: svc.Spec.Name, Reason: refusals[svc.ID]})
		}
	}
	return why
}
