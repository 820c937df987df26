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
	// unheardLease is the lease, if it is more than the cluster's, of nodes that this
	// manager has never heard of: where it was recovered or restored, at another
	// address perhaps, they have to find it.
	unheardLease = 15 * time.Second
)

// contact is what is known of a node beside the store.
type contact struct {
	reported time.Time
	gossiped time.Time // last sign of life by gossip
	applied  api.Index
	advanced time.Time // when applied last grew or was complete, or the node came back
	heard    time.Time // last report that came to this manager while it led
	unheard  bool      // it had given no sign of life when this manager began to lead, and has not reported
}

// seen is when the node last gave any sign of life.
func (c contact) seen() time.Time {
	if c.gossiped.After(c.reported) {
		return c.gossiped
	}
	return c.reported
}

// ackUntil is until when the node's acknowledgements are waited for, if it does
// nothing more.
func (c contact) ackUntil() time.Time {
	silent, stuck := c.seen().Add(ackWindow), c.advanced.Add(ackPatience)
	if silent.Before(stuck) {
		return silent
	}
	return stuck
}

// leaseUntil is until when the node's tasks stay its own, if it does not report.
func (c contact) leaseUntil(lease time.Duration) time.Time {
	if c.unheard {
		lease = max(lease, unheardLease)
	}
	return c.reported.Add(lease)
}

// Tracker holds the nodes' leases and acknowledgements. It lives on every
// manager, so that a new leader knows since when a node has been silent.
type Tracker struct {
	mu      sync.Mutex
	leads   bool
	term    uint64    // of Raft, in which it leads
	anew    bool      // see Forget
	since   time.Time // when it began to lead
	lease   lease
	nodes   map[api.NodeID]contact
	changed chan struct{}
}

// lease is the cluster's, and since when this manager has gone by it.
type lease struct {
	timeout time.Duration
	since   time.Time
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
	back := now.Sub(c.reported) > ackWindow
	news := back || applied > c.applied
	if news || applied >= latest {
		c.advanced = now
	}
	c.reported, c.applied, c.unheard = now, applied, false
	if t.leads {
		c.heard = now
	}
	t.nodes[id] = c
	if news {
		t.notify()
	}
}

// Gossiped notes which nodes gossip holds for alive. It extends no lease, but
// their acknowledgements are waited for, and a manager that becomes the leader
// knows who was alive until then.
func (t *Tracker) Gossiped(alive map[api.NodeID]bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, ok := range alive {
		if c := t.nodes[id]; ok {
			c.gossiped = now
			t.nodes[id] = c
		}
	}
}

// LeaderHeard notes when the leader was last heard of by Raft, after Gossiped:
// gossip holds a node for alive for about a second after its last sign of life, and
// when a leader is lost that second would be added to its lease.
func (t *Tracker) LeaderHeard(id api.NodeID, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, known := t.nodes[id]; known {
		c.gossiped = at
		t.nodes[id] = c
	}
}

// Forget has the next term begin as if no node had ever been heard of: this manager
// goes on alone. Until it leads, nodes that came by were told that there is no leader,
// and are on their way round the managers that are lost.
func (t *Tracker) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.anew = true
}

// Lead starts a leader's term, which is Raft's: nodes never heard of get unheardLease
// from now, and acknowledgements are to be heard anew.
func (t *Tracker) Lead(term uint64, nodes map[api.NodeID]*api.Node, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leads, t.term, t.since = true, term, now
	if t.anew {
		clear(t.nodes)
		t.anew = false
	}
	for id := range nodes {
		c := t.nodes[id]
		if c.reported = c.seen(); c.reported.IsZero() {
			c.reported, c.unheard = now, true
		}
		c.applied, c.advanced = 0, now
		t.nodes[id] = c
	}
	t.notify()
}

// Resign ends a leader's term.
func (t *Tracker) Resign() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leads = false
}

// Leads reports whether this manager is the leader of a term: it has applied all
// that the leaders before it wrote, and leases and acknowledgements are its own.
func (t *Tracker) Leads(term uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leads && t.term == term
}

// Contact returns when a node was last heard of and what it has acknowledged.
func (t *Tracker) Contact(id api.NodeID) (seen time.Time, applied api.Index) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.nodes[id]
	return c.seen(), c.applied
}

// Acked returns the highest index that every live node has put into its
// kernel, 0 if this manager does not lead and so does not know. A node that is
// silent, or has been stuck for long, is not waited for.
func (t *Tracker) Acked(snap *api.Snapshot, now time.Time) api.Index {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.leads {
		return 0
	}
	lowest := snap.Index
	for id, node := range snap.Nodes {
		c := t.nodes[id]
		live := node.State == api.NodeReady && !now.After(c.ackUntil())
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
		case now.After(c.leaseUntil(snap.Cluster.LeaseTimeout)):
			state = api.NodeDown
		case node.State == api.NodeDown && c.applied == 0:
			continue // has not been heard in this term
		}
		if state != node.State {
			next := *node
			next.State = state
			next.Rebalance = state == api.NodeReady
			changes = append(changes, api.Change{Node: &next})
		}
	}
	return changes
}

// EndLongLease plans the end of a lease that was longer than the one that holds now:
// what was given by it before this manager led, or heard of the new one, is over.
func (t *Tracker) EndLongLease(snap *api.Snapshot, now time.Time) []api.Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lease.timeout != snap.Cluster.LeaseTimeout {
		t.lease = lease{snap.Cluster.LeaseTimeout, now}
	}
	from := t.lease.since
	if from.Before(t.since) {
		from = t.since
	}
	if snap.Cluster.LongLease == 0 || !t.leads || now.Before(from.Add(snap.Cluster.FenceWait())) {
		return nil
	}
	next := *snap.Cluster
	next.LongLease = 0
	return []api.Change{{Cluster: &next}}
}

// Fenced reports whether no singleton runs any more on a node of which nothing is
// heard. Leaders before this one may have extended its fence until they ended, so
// that it is not counted from before this one began.
func (t *Tracker) Fenced(id api.NodeID, wait time.Duration, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leads && now.After(t.fencedAt(id, wait))
}

func (t *Tracker) fencedAt(id api.NodeID, wait time.Duration) time.Time {
	last := t.nodes[id].heard
	if last.Before(t.since) {
		last = t.since
	}
	return last.Add(wait)
}

// NextExpiry returns when the next lease runs out, or the next node that is
// behind is no longer waited for, if nothing is heard.
func (t *Tracker) NextExpiry(snap *api.Snapshot, now time.Time) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := now.Add(snap.Cluster.LeaseTimeout)
	for id, node := range snap.Nodes {
		if node.State != api.NodeReady {
			if at := t.fencedAt(id, snap.Cluster.FenceWait()).Add(time.Millisecond); at.After(now) && at.Before(next) {
				next = at
			}
			continue
		}
		c := t.nodes[id]
		expiries := []time.Time{c.leaseUntil(snap.Cluster.LeaseTimeout)}
		if until := c.ackUntil(); c.applied < snap.Index && !now.After(until) {
			expiries = append(expiries, until)
		}
		for _, at := range expiries {
			if at = at.Add(time.Millisecond); at.Before(next) {
				next = at
			}
		}
	}
	return next
}

func (t *Tracker) notify() {
	close(t.changed)
	t.changed = make(chan struct{})
}
