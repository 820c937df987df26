package control

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

const (
	// fullViews is how many views of everything are on their way at a time: each
	// has all endpoints of the cluster in it.
	fullViews = 4
	// baseAge is how old the state may be that a session begins with, if there is
	// a newer one: what has changed since then follows. It bounds how often all of
	// it is encoded.
	baseAge = time.Second
	// baseKept is for how long the encoded state is kept with nobody asking for it.
	baseKept = 10 * time.Second
	// newsKept bounds the memory that encoded changes take, in bytes.
	newsKept = 16 << 20
	// usualView is about how long most changes are as nodes are told of them, in
	// bytes.
	usualView = 400
)

// views encodes what nodes are told. They are told the same but for their own
// tasks, so it is encoded once for all of them.
type views struct {
	snapshot func() *api.Snapshot
	now      func() time.Time
	sending  chan struct{} // holds a token for each full view on its way

	baseMu sync.Mutex
	base   *news // everything; nil if it is not kept
	made   time.Time
	drop   *time.Timer

	newsMu sync.Mutex
	known  map[*api.Change]*news // by the first of the changes
	order  []*api.Change         // of what is known, the oldest first
	size   int
}

func newViews(snapshot func() *api.Snapshot, now func() time.Time) *views {
	return &views{snapshot: snapshot, now: now, sending: make(chan struct{}, fullViews), known: make(map[*api.Change]*news)}
}

// news is what nodes are told of some changes.
type news struct {
	index   api.Index
	common  []byte                     // what all are told: changes as JSON, with commas between
	own     map[api.NodeID][]*api.Task // of each node's tasks, of which it is told more
	removed map[api.NodeID]bool        // nodes that are told nothing any more
}

func encodeNews(index api.Index, changes []api.Change) (*news, error) {
	n := &news{index: index, own: make(map[api.NodeID][]*api.Task), removed: make(map[api.NodeID]bool)}
	n.common = make([]byte, 0, len(changes)*usualView)
	for _, c := range changes {
		if c.File != nil { // no node's, but by TaskFiles
			continue
		}
		text, err := json.Marshal(commonView(c))
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", c.Ref().Kind, c.Ref().ID, err)
		}
		if len(n.common) > 0 {
			n.common = append(n.common, ',')
		}
		n.common = append(n.common, text...)
		switch {
		case c.Task != nil && c.Task.NodeID != "" && !c.Delete:
			n.own[c.Task.NodeID] = append(n.own[c.Task.NodeID], c.Task)
		case c.Node != nil && c.Delete:
			n.removed[c.Node.ID] = true
		}
	}
	return n, nil
}

// encodeUpdate makes the api.Update of one node. What it is told of its own tasks
// comes after what all are told of them, and replaces it.
func encodeUpdate(node api.NodeID, reset bool, all ...*news) (*rpc.Encoded, error) {
	out := rpc.Encoded{fmt.Appendf(nil, `{"index":%d,"reset":%t,"changes":[`, all[len(all)-1].index, reset)}
	add := func(changes []byte) {
		if len(changes) == 0 {
			return
		}
		if len(out) > 1 {
			out = append(out, []byte{','})
		}
		out = append(out, changes)
	}
	for _, n := range all {
		add(n.common)
		for _, t := range n.own[node] {
			text, err := json.Marshal(api.Change{Task: ownView(t)})
			if err != nil {
				return nil, fmt.Errorf("encode task %s: %w", t.ID, err)
			}
			add(text)
		}
	}
	out = append(out, []byte("]}"))
	return &out, nil
}

// sendFull sends a node all that it is told, of a state not older than oldest, and
// returns that state's index.
func (v *views) sendFull(ctx context.Context, node api.NodeID, oldest api.Index, send func(*rpc.Encoded) error) (api.Index, error) {
	select {
	case v.sending <- struct{}{}:
		defer func() { <-v.sending }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	all, err := v.all(oldest)
	if err != nil {
		return 0, err
	}
	update, err := encodeUpdate(node, true, all)
	if err != nil {
		return 0, err
	}
	return all.index, send(update)
}

// all returns the whole state, not older than oldest.
func (v *views) all(oldest api.Index) (*news, error) {
	v.baseMu.Lock()
	defer v.baseMu.Unlock()
	now, snap := v.now(), v.snapshot()
	if v.base == nil || v.base.index < oldest || v.base.index != snap.Index && now.Sub(v.made) > baseAge {
		base, err := encodeNews(snap.Index, everything(snap))
		if err != nil {
			return nil, err
		}
		v.base, v.made = base, now
	}
	if v.drop != nil {
		v.drop.Stop()
	}
	v.drop = time.AfterFunc(baseKept, func() {
		v.baseMu.Lock()
		defer v.baseMu.Unlock()
		v.base = nil
	})
	return v.base, nil
}

// news returns what nodes are told of an entry.
func (v *views) news(d store.Delta) (*news, error) {
	v.newsMu.Lock()
	defer v.newsMu.Unlock()
	key := &d.Changes[0]
	if known := v.known[key]; known != nil {
		return known, nil
	}
	n, err := encodeNews(d.Index, d.Changes)
	if err != nil {
		return nil, err
	}
	v.known[key] = n
	v.order = append(v.order, key)
	for v.size += len(n.common); v.size > newsKept && len(v.order) > 1; v.order = v.order[1:] {
		v.size -= len(v.known[v.order[0]].common)
		delete(v.known, v.order[0])
	}
	return n, nil
}

// everything is a snapshot as the changes that make it.
func everything(snap *api.Snapshot) []api.Change {
	all := []api.Change{{Cluster: snap.Cluster}}
	for _, n := range api.Sorted(snap.Nodes) {
		all = append(all, api.Change{Node: n})
	}
	for _, n := range api.Sorted(snap.Networks) {
		all = append(all, api.Change{Network: n})
	}
	for _, svc := range api.Sorted(snap.Services) {
		all = append(all, api.Change{Service: svc})
	}
	for _, t := range api.Sorted(snap.Tasks) {
		all = append(all, api.Change{Task: t})
	}
	return all
}

// commonView strips a change of what nodes have no need to know: secrets of the
// cluster, how services are made, and all of other nodes' tasks but where they
// can be reached.
func commonView(c api.Change) api.Change {
	switch {
	case c.Cluster != nil:
		stripped := *c.Cluster
		stripped.WorkerToken, stripped.ManagerToken, stripped.RotatedTokens = "", "", nil
		stripped.GossipKey, stripped.NextGossipKey, stripped.OldGossipKey = nil, nil, nil
		stripped.Authority.Key, stripped.Users = nil, nil
		stripped.UnlockKey, stripped.BackupKey = nil, nil
		if c.Cluster.Rotation != nil {
			rotation := *c.Cluster.Rotation
			rotation.Next.Key = nil
			stripped.Rotation = &rotation
		}
		c.Cluster = &stripped
	case c.Service != nil:
		spec := &c.Service.Spec
		stripped := *c.Service
		stripped.Spec = api.ServiceSpec{
			Name: spec.Name, Alias: spec.Alias, Mode: spec.Mode, Ports: spec.Ports,
			Networks: spec.Networks, NetworkAliases: spec.NetworkAliases, EndpointMode: spec.EndpointMode,
			Balance: spec.Balance, Return: spec.Return,
		}
		stripped.Previous, stripped.Update = nil, nil
		c.Service = &stripped
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

// ownView is what the node of a task is told of it.
func ownView(t *api.Task) *api.Task {
	stripped := *t
	stripped.History = nil
	return &stripped
}
