package manager

import (
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// ackWindow is how recently a node must have been heard of for the cluster
	// to wait for its acknowledgements: other nodes take a silent one for dead
	// at about the same time.
	ackWindow = 2 * time.Second
	// ackPatience is how long a node that reports, but gets no further, is
	// waited for.
	ackPatience = 5 * time.Second
)

// contact is what is known of a node beside the store.
type contact struct {
	seen     time.Time // last report, or sign of life by gossip
	applied  api.Index
	advanced time.Time // when applied last grew, or was last complete
}

// Tracker holds the nodes' leases and acknowledgements. It lives on every
// manager, so that a new leader knows since when a node has been silent.
type Tracker struct {
	mu      sync.Mutex
	nodes   map[api.NodeID]contact
	changed chan struct{}
}

func NewTracker() *Tracker {
	return &Tracker{nodes: make(map[api.NodeID]contact), changed: make(chan struct{})}
}

// Changed returns a channel that is closed at the next report that brings news.
func (t *Tracker) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Reported notes a node's report: latest is the index of the newest state.
func (t *Tracker) Reported(id api.NodeID, applied, latest api.Index, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.nodes[id]
	news := now.Sub(c.seen) > ackWindow || applied > c.applied
	if applied > c.applied || applied >= latest {
		c.advanced = now
	}
	c.seen, c.applied = now, applied
	t.nodes[id] = c
	if news {
		t.notify()
	}
}

// Gossiped notes which nodes gossip holds for alive. It extends no lease of a
// node that reports: it only tells a manager that has just become the leader
// who was alive until now.
func (t *Tracker) Gossiped(alive map[api.NodeID]bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, ok := range alive {
		if c := t.nodes[id]; ok {
			c.seen = now
			t.nodes[id] = c
		}
	}
}

// Lead starts a leader's term: nodes never heard of get a full lease from now,
// and acknowledgements are to be heard anew.
func (t *Tracker) Lead(nodes map[api.NodeID]*api.Node, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range nodes {
		c := t.nodes[id]
		if c.seen.IsZero() {
			c.seen = now
		}
		c.applied, c.advanced = 0, now
		t.nodes[id] = c
	}
	t.notify()
}

// Contact returns when a node was last heard of and what it has acknowledged.
func (t *Tracker) Contact(id api.NodeID) (seen time.Time, applied api.Index) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.nodes[id]
	return c.seen, c.applied
}

// Acked returns the highest index that every live node has put into its
// kernel. A node that is silent, or has been stuck for long, is not waited for.
func (t *Tracker) Acked(snap *api.Snapshot, now time.Time) api.Index {
	t.mu.Lock()
	defer t.mu.Unlock()
	lowest := snap.Index
	for id, node := range snap.Nodes {
		c := t.nodes[id]
		live := node.State == api.NodeReady && now.Sub(c.seen) <= ackWindow && now.Sub(c.advanced) <= ackPatience
		if live && c.applied < lowest {
			lowest = c.applied
		}
	}
	return lowest
}

// Leases plans the nodes' states: down when the lease ran out, ready when a
// node has reported.
func (t *Tracker) Leases(snap *api.Snapshot, now time.Time) []api.Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	var changes []api.Change
	for _, node := range api.Sorted(snap.Nodes) {
		state := api.NodeReady
		c := t.nodes[node.ID]
		switch {
		case now.Sub(c.seen) > snap.Cluster.LeaseTimeout:
			state = api.NodeDown
		case node.State == api.NodeDown && c.applied == 0:
			continue // seen by gossip, has not reported yet
		}
		if state != node.State {
			next := *node
			next.State = state
			changes = append(changes, api.Change{Node: &next})
		}
	}
	return changes
}

// NextExpiry returns when the next lease runs out if nothing is heard.
func (t *Tracker) NextExpiry(snap *api.Snapshot, now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := now.Add(snap.Cluster.LeaseTimeout)
	for id, node := range snap.Nodes {
		expiry := t.nodes[id].seen.Add(snap.Cluster.LeaseTimeout + time.Millisecond)
		if node.State == api.NodeReady && expiry.Before(next) {
			next = expiry
		}
	}
	return next
}

func (t *Tracker) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}
