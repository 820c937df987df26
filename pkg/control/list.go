package control

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// WatchStack sends how far a stack is, now and whenever that changes, until the
// caller has heard enough.
func (s *Server) WatchStack(ctx context.Context, req *api.StackRequest, send func(*api.StackStatus) error) error {
	for {
		changed, acked := s.Replica.Changed(), s.Tracker.Changed()
		snap, now := s.Replica.Snapshot(), s.Now()
		status := &api.StackStatus{
			Index:    snap.Index,
			Services: statuses(snap, req.Stack, s.Tracker.Acked(snap, now)),
		}
		if err := send(status); err != nil {
			return err
		}
		// A node that is no longer waited for changes the status, too.
		expiry := time.NewTimer(s.Tracker.NextExpiry(snap, now).Sub(now))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-acked:
		case <-expiry.C:
		}
		expiry.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
		if !s.leads() {
			return api.Errorf(api.CodeUnavailable, "this manager does not lead any more")
		}
	}
}

// Stacks lists the stacks by name.
func (s *Server) Stacks(context.Context, *api.Empty) (*api.StackList, error) {
	snap := s.Replica.Snapshot()
	entries := make(map[string]*api.StackEntry)
	entry := func(name string) *api.StackEntry {
		if entries[name] == nil {
			entries[name] = &api.StackEntry{Name: name}
		}
		return entries[name]
	}
	for _, svc := range snap.Services {
		entry(svc.Stack).Services++
	}
	for _, t := range snap.Tasks {
		if !t.Status.State.Terminal() {
			entry(t.Stack).Tasks++
		}
	}
	list := &api.StackList{Stacks: []api.StackEntry{}}
	for _, e := range api.Sorted(entries) {
		list.Stacks = append(list.Stacks, *e)
	}
	return list, nil
}

// Services lists services by name.
func (s *Server) Services(_ context.Context, req *api.ServicesRequest) (*api.ServiceList, error) {
	snap := s.Replica.Snapshot()
	services := servicesByName(snap, req.Stack)
	if req.Stack != "" && len(services) == 0 {
		return nil, unknownStack(req.Stack)
	}
	status := statuses(snap, req.Stack, s.Tracker.Acked(snap, s.Now()))
	list := &api.ServiceList{Services: []api.ServiceEntry{}}
	for i, svc := range services {
		list.Services = append(list.Services, api.ServiceEntry{Service: *shown(svc), Status: status[i]})
	}
	return list, nil
}

// shown is a service as users see it: without credentials.
func shown(svc *api.Service) *api.Service {
	out := *svc
	out.Spec.Task.RegistryAuth = nil
	if svc.Previous != nil {
		previous := *svc.Previous
		previous.Task.RegistryAuth = nil
		out.Previous = &previous
	}
	return &out
}

// shownTask is a task as users see it: without credentials.
func shownTask(t *api.Task) api.Task {
	out := *t
	out.Spec.RegistryAuth = nil
	if t.Fetch != nil {
		fetch := *t.Fetch
		fetch.RegistryAuth = nil
		out.Fetch = &fetch
	}
	return out
}

// Tasks lists the tasks of a stack, of a service, on a node, or all, by service and
// slot, the newest of a slot first.
func (s *Server) Tasks(_ context.Context, req *api.TasksRequest) (*api.TaskList, error) {
	snap := s.Replica.Snapshot()
	var only api.ServiceID
	if req.Service != "" {
		svc, err := findService(snap, req.Service)
		if err != nil {
			return nil, err
		}
		only = svc.ID
	}
	var on api.NodeID
	if req.Node != "" {
		node, err := findNode(snap, req.Node)
		if err != nil {
			return nil, err
		}
		on = node.ID
	}
	list := &api.TaskList{Tasks: []api.TaskEntry{}}
	for _, t := range snap.Tasks {
		if (only == "" || t.ServiceID == only) && (on == "" || t.NodeID == on) && (req.Stack == "" || t.Stack == req.Stack) {
			entry := api.TaskEntry{Task: shownTask(t)}
			if n := snap.Nodes[t.NodeID]; n != nil {
				entry.NodeName = n.Hostname
			}
			list.Tasks = append(list.Tasks, entry)
		}
	}
	if req.Stack != "" && len(list.Tasks) == 0 && len(servicesByName(snap, req.Stack)) == 0 {
		return nil, unknownStack(req.Stack)
	}
	slices.SortFunc(list.Tasks, compareTasks)
	return list, nil
}

func compareTasks(a, b api.TaskEntry) int {
	switch {
	case a.ServiceName != b.ServiceName:
		return cmp.Compare(a.ServiceName, b.ServiceName)
	case a.Slot != b.Slot:
		return a.Slot - b.Slot
	case a.Slot == 0 && a.NodeName != b.NodeName:
		return cmp.Compare(a.NodeName, b.NodeName)
	case a.Meta.Created != b.Meta.Created:
		return cmp.Compare(b.Meta.Created, a.Meta.Created)
	}
	return cmp.Compare(a.ID, b.ID)
}
