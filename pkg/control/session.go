package control

import (
	"context"
	"errors"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

// Session sends an agent its node's view of the cluster: first all of it, then
// every change in the order of the log. Each update carries the index that the
// agent acknowledges once it has applied it.
func (s *Server) Session(ctx context.Context, req *api.SessionRequest, send func(*api.Update) error) error {
	if err := ownCall(ctx, req.Node); err != nil {
		return err
	}
	for {
		snap := s.Replica.Snapshot()
		if snap.Nodes[req.Node] == nil {
			return notMember(req.Node)
		}
		if err := send(fullView(req.Node, snap)); err != nil {
			return err
		}
		err := s.follow(ctx, req.Node, snap.Index, send)
		if !errors.Is(err, store.ErrTooOld) {
			return err
		}
	}
}

// follow sends what changes after an index until something fails or the agent
// has fallen too far behind.
func (s *Server) follow(ctx context.Context, node api.NodeID, after api.Index, send func(*api.Update) error) error {
	watch := s.Replica.Watch(after)
	for {
		deltas, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		update := &api.Update{Index: deltas[len(deltas)-1].Index}
		for _, d := range deltas {
			for _, c := range d.Changes {
				if c.Delete && c.Node != nil && c.Node.ID == node {
					return notMember(node)
				}
				if c.File == nil { // no node's, but by TaskFiles
					update.Changes = append(update.Changes, viewOf(node, c))
				}
			}
		}
		if err := send(update); err != nil {
			return err
		}
	}
}

func fullView(node api.NodeID, snap *api.Snapshot) *api.Update {
	u := &api.Update{Index: snap.Index, Reset: true}
	add := func(c api.Change) { u.Changes = append(u.Changes, viewOf(node, c)) }
	add(api.Change{Cluster: snap.Cluster})
	for _, n := range api.Sorted(snap.Nodes) {
		add(api.Change{Node: n})
	}
	for _, n := range api.Sorted(snap.Networks) {
		add(api.Change{Network: n})
	}
	for _, svc := range api.Sorted(snap.Services) {
		add(api.Change{Service: svc})
	}
	for _, t := range api.Sorted(snap.Tasks) {
		add(api.Change{Task: t})
	}
	return u
}

// viewOf strips a change of what a node has no need to know: secrets of the
// cluster, how services are made, and all of other nodes' tasks but where they
// can be reached.
func viewOf(node api.NodeID, c api.Change) api.Change {
	switch {
	case c.Cluster != nil:
		stripped := *c.Cluster
		stripped.WorkerToken, stripped.ManagerToken, stripped.RotatedTokens = "", "", nil
		stripped.GossipKey, stripped.Authority.Key, stripped.Users, stripped.UnlockKey = nil, nil, nil, nil
		if c.Cluster.Rotation != nil {
			rotation := *c.Cluster.Rotation
			rotation.Next.Key = nil
			stripped.Rotation = &rotation
		}
		c.Cluster = &stripped
	case c.Service != nil:
		spec := &c.Service.Spec
		stripped := *c.Service
		stripped.Spec = api.ServiceSpec{Name: spec.Name, Alias: spec.Alias, Mode: spec.Mode, Networks: spec.Networks, Ports: spec.Ports}
		stripped.Previous, stripped.Update = nil, nil
		c.Service = &stripped
	case c.Task != nil && c.Task.NodeID == node:
		stripped := *c.Task
		stripped.History = nil
		c.Task = &stripped
	case c.Task != nil:
		t := c.Task
		c.Task = &api.Task{
			Meta: t.Meta, ID: t.ID, ServiceID: t.ServiceID, ServiceName: t.ServiceName, Stack: t.Stack,
			Slot: t.Slot, NodeID: t.NodeID, Networks: t.Networks, Endpoint: t.Endpoint,
			Desired: t.Desired, Status: api.TaskStatus{State: t.Status.State},
		}
	}
	return c
}
