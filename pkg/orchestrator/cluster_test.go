package orchestrator_test

import (
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/ipam"
	"github.com/orch-dev/orch/pkg/orchestrator"
	"github.com/orch-dev/orch/pkg/scheduler"
)

// cluster is a simulated cluster: a store that checks versions and stamps as
// the real one does, agents that report, and nodes that acknowledge.
type cluster struct {
	snap  *api.Snapshot
	now   time.Time
	acked map[api.NodeID]api.Index
	ids   int
	// fenced says of which nodes that are lost nothing runs any more.
	fenced func(api.NodeID) bool
}

func newCluster(nodes int) *cluster {
	c := &cluster{
		snap:  &api.Snapshot{},
		now:   time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		acked: map[api.NodeID]api.Index{},
	}
	changes := []api.Change{
		{Cluster: &api.Cluster{ID: "c", Pool: "10.128.0.0/26"}},
		{Network: &api.Network{ID: "net", Name: "blog_default"}},
	}
	for i := range nodes {
		changes = append(changes, api.Change{Node: node(i)})
	}
	c.commit(changes)
	return c
}

func node(i int) *api.Node {
	return &api.Node{
		ID: api.NodeID(fmt.Sprintf("n%d", i)), Hostname: fmt.Sprintf("host%d", i), State: api.NodeReady,
		Availability: api.AvailabilityActive, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}),
	}
}

// commit applies changes as one entry.
func (c *cluster) commit(changes []api.Change) {
	if len(changes) == 0 {
		return
	}
	index := c.snap.Index + 1
	for i, change := range changes {
		if had := c.version(change.Ref()); had != change.Expected() {
			panic(fmt.Sprintf("%v has version %d, expected %d", change.Ref(), had, change.Expected()))
		}
		changes[i] = c.stamp(change, index)
	}
	c.snap = c.snap.With(changes)
	c.snap.Index = index
}

func (c *cluster) version(ref api.Ref) api.Index {
	switch ref.Kind {
	case api.KindCluster:
		if c.snap.Cluster != nil {
			return c.snap.Cluster.Meta.Modified
		}
	case api.KindNode:
		if n := c.snap.Nodes[api.NodeID(ref.ID)]; n != nil {
			return n.Meta.Modified
		}
	case api.KindService:
		if s := c.snap.Services[api.ServiceID(ref.ID)]; s != nil {
			return s.Meta.Modified
		}
	case api.KindTask:
		if t := c.snap.Tasks[api.TaskID(ref.ID)]; t != nil {
			return t.Meta.Modified
		}
	case api.KindNetwork:
		if n := c.snap.Networks[api.NetworkID(ref.ID)]; n != nil {
			return n.Meta.Modified
		}
	}
	return 0
}

func (c *cluster) stamp(change api.Change, index api.Index) api.Change {
	if change.Delete {
		return change
	}
	stampMeta := func(m *api.Meta) {
		if m.Created == 0 {
			m.Created = index
		}
		m.Modified = index
	}
	switch {
	case change.Cluster != nil:
		x := *change.Cluster
		stampMeta(&x.Meta)
		change.Cluster = &x
	case change.Node != nil:
		x := *change.Node
		stampMeta(&x.Meta)
		change.Node = &x
	case change.Service != nil:
		x := *change.Service
		old := c.snap.Services[x.ID]
		if old == nil || !reflect.DeepEqual(old.Spec.Task, x.Spec.Task) || !reflect.DeepEqual(old.Spec.Networks, x.Spec.Networks) {
			x.SpecVersion = index
		}
		stampMeta(&x.Meta)
		change.Service = &x
	case change.Task != nil:
		x := *change.Task
		old := c.snap.Tasks[x.ID]
		if old == nil || old.Endpoint.State != x.Endpoint.State {
			x.Endpoint.Since = index
		} else {
			x.Endpoint.Since = old.Endpoint.Since
		}
		stampMeta(&x.Meta)
		change.Task = &x
	case change.Network != nil:
		x := *change.Network
		stampMeta(&x.Meta)
		change.Network = &x
	}
	return change
}

// lowestAck is what every live node has acknowledged.
func (c *cluster) lowestAck() api.Index {
	lowest := c.snap.Index
	for id, n := range c.snap.Nodes {
		if n.State == api.NodeReady {
			lowest = min(lowest, c.acked[id])
		}
	}
	return lowest
}

// plan runs the planners as the leader does, without applying what they say.
func (c *cluster) plan() []api.Change {
	ids := c.ids
	tasks := orchestrator.Plan(orchestrator.Input{
		Snapshot: c.snap, Now: c.now, Acked: c.lowestAck(), Fenced: c.fenced,
		NewID: func() api.TaskID {
			ids++
			return api.TaskID(fmt.Sprintf("t%04d", ids))
		},
	})
	snap := c.snap.With(tasks)
	allocations, _ := ipam.Plan(snap)
	snap = snap.With(allocations)
	placements := scheduler.Plan(snap, c.now)
	return api.Merge(tasks, allocations, placements, scheduler.Rebalance(snap.With(placements), c.now))
}

func (c *cluster) step() (changed bool) {
	changes := c.plan()
	for _, change := range changes {
		if change.Task != nil && change.Expected() == 0 {
			c.ids++
		}
	}
	c.commit(changes)
	return len(changes) > 0
}

func (c *cluster) ackAll() {
	for id := range c.snap.Nodes {
		c.acked[id] = c.snap.Index
	}
}

// report is what a task's agent says of it.
func (c *cluster) report(id api.TaskID, status api.TaskStatus) {
	t := *c.snap.Tasks[id]
	status.At = c.now
	t.Status = t.Status.Advance(status)
	c.commit([]api.Change{{Task: &t}})
}

// next is what a task's agent would report next if all goes well; false if
// there is nothing to do.
func (c *cluster) next(t *api.Task) (api.TaskStatus, bool) {
	s := t.Status
	n := c.snap.Nodes[t.NodeID]
	if n == nil || n.State != api.NodeReady || s.State == api.TaskPending {
		return s, false
	}
	switch {
	case s.State.Terminal():
		wasRemoved := s.Removed
		s.Removed = t.Desired == api.DesiredRemove
		return s, s.Removed && !wasRemoved
	case t.Desired == api.DesiredStop || t.Desired == api.DesiredRemove:
		s.State = api.TaskShutdown
	case t.Fetch != nil && s.Fetched != t.Fetch.Round:
		s.Fetched, s.FetchError = t.Fetch.Round, ""
	case s.State == api.TaskAssigned:
		s.State = api.TaskPreparing
	case s.State == api.TaskPreparing:
		s.State = api.TaskStarting
	case s.State == api.TaskStarting:
		s.State = api.TaskRunning
	default:
		return s, false
	}
	return s, true
}

// settle lets everything go well until nothing happens any more, and reports
// whether that came.
func (c *cluster) settle(check func()) bool {
	return c.settleWith(check, c.next)
}

// settleWith is settle where agents report what next says.
func (c *cluster) settleWith(check func(), next func(*api.Task) (api.TaskStatus, bool)) bool {
	for range 2000 {
		changed := c.step()
		check()
		for _, t := range api.Sorted(c.snap.Tasks) {
			if status, ok := next(t); ok {
				c.report(t.ID, status)
				changed = true
			}
		}
		if c.lowestAck() < c.snap.Index {
			c.ackAll()
			changed = true
		}
		if changed {
			continue
		}
		wake := orchestrator.NextWake(c.snap, c.now)
		if wake.IsZero() {
			return true
		}
		c.now = wake
	}
	return false
}

// service puts a service, from what it is now or a fresh one.
func (c *cluster) service(id string, change func(*api.ServiceSpec)) {
	s := api.Service{ID: api.ServiceID(id), Spec: api.ServiceSpec{
		Name: "blog_" + id, Mode: api.ModeReplicated, Replicas: 1, Networks: []string{"blog_default"},
		Task:    api.TaskSpec{Image: "v1"},
		Update:  api.UpdateConfig{Parallelism: 1, Order: api.StopFirst},
		Restart: api.RestartPolicy{Condition: api.RestartAny, Delay: 5 * time.Second},
	}}
	old := c.snap.Services[s.ID]
	if old != nil {
		s = *old
	}
	spec := s.Spec
	if change != nil {
		change(&spec)
	}
	if old != nil {
		s = *old.WithSpec(spec, c.now)
	}
	s.Spec = spec
	c.commit([]api.Change{{Service: &s}})
}

func (c *cluster) changeNode(id api.NodeID, change func(*api.Node)) {
	n := *c.snap.Nodes[id]
	change(&n)
	c.commit([]api.Change{{Node: &n}})
}

// serving counts the service's tasks that every live node sends flows to.
func (c *cluster) serving(id api.ServiceID) int {
	n := 0
	for _, t := range c.snap.Tasks {
		if t.ServiceID == id && t.Status.State == api.TaskRunning && t.Endpoint.State == api.EndpointReady {
			if c.lowestAck() >= t.Endpoint.Since {
				n++
			}
		}
	}
	return n
}

// resume goes on with a service's update if it was paused.
func (c *cluster) resume(svc *api.Service) bool {
	if !svc.Update.Paused() {
		return false
	}
	state := api.UpdateRunning
	if svc.Update.Back() {
		state = api.RollbackRunning
	}
	c.now = c.now.Add(time.Second)
	c.commit([]api.Change{{Service: svc.WithUpdate(state, "", c.now)}})
	return true
}

func (c *cluster) resumeAll() (any bool) {
	for _, svc := range api.Sorted(c.snap.Services) {
		any = c.resume(svc) || any
	}
	return any
}
