package consensus

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/api"
)

// Leader returns the leader as far as this node knows, which may be out of
// date; ok is false while it knows of none.
func (n *Node) Leader() (id api.NodeID, addr string, ok bool) {
	a, i := n.raft.Load().LeaderWithID()
	if api.NodeID(i) == n.id && !n.IsLeader() {
		return "", "", false
	}
	return api.NodeID(i), string(a), i != ""
}

// WaitLeader returns the leader as soon as this node knows of one.
func (n *Node) WaitLeader(ctx context.Context) (id api.NodeID, addr string, err error) {
	for {
		changed := n.lead.leaderChanged()
		if id, addr, ok := n.Leader(); ok {
			return id, addr, nil
		}
		select {
		case <-changed:
		case <-n.closing:
			return "", "", fmt.Errorf("wait for a leader: %w", raft.ErrRaftShutdown)
		case <-ctx.Done():
			return "", "", fmt.Errorf("wait for a leader: %w: %w", ErrNoQuorum, context.Cause(ctx))
		}
	}
}

// LeaderChanged returns a channel that is closed when this node next learns of
// another leader, or that there is none.
func (n *Node) LeaderChanged() <-chan struct{} { return n.lead.leaderChanged() }

// Term is the newest that this node knows of; its own, if it leads.
func (n *Node) Term() uint64 { return n.raft.Load().CurrentTerm() }

// IsLeader reports whether this node believes it leads. Only VerifyLeader makes
// sure.
func (n *Node) IsLeader() bool { return n.raft.Load().State() == raft.Leader && !n.lead.isStalled() }

// Leadership delivers whether this node leads: the current value first, then
// every change. A reader that is late may miss a lead it had and lost
// meanwhile, but never that a lead was interrupted: between two true there is
// always a false. The channel is closed by Shutdown.
func (n *Node) Leadership() <-chan bool {
	ch := make(chan bool)
	go func() {
		defer close(ch)
		first, last, seen := true, false, uint64(0)
		for {
			leads, edges, changed := n.lead.now()
			var out chan<- bool // nil: nothing to deliver
			value := leads
			switch {
			case first || leads != last:
				out = ch
			case leads && edges != seen:
				out, value = ch, false // lost and won again
			}
			select {
			case out <- value:
				first, last = false, value
				if value == leads {
					seen = edges
				}
			case <-changed:
			case <-n.closing:
				return
			}
		}
	}()
	return ch
}

// leadership follows who leads.
type leadership struct {
	notify   chan bool             // Raft's word on whether this node leads; it waits for us
	observed chan raft.Observation // a wake-up: the leader known is another one

	mu     sync.Mutex
	raft   bool          // whether this node leads, by Raft's word
	stop   chan struct{} // closed while the node takes no part in Raft: see Node.giveUp
	out    bool          // stop is closed
	leads  bool          // raft, and takes part
	edges  uint64        // how often leads has changed
	own    chan struct{}
	others chan struct{}
}

func newLeadership() *leadership {
	return &leadership{
		notify:   make(chan bool, 8),
		observed: make(chan raft.Observation, 8),
		stop:     make(chan struct{}),
		own:      make(chan struct{}),
		others:   make(chan struct{}),
	}
}

func (l *leadership) run(closing <-chan struct{}) {
	for {
		select {
		case leads := <-l.notify:
			l.mu.Lock()
			l.raft = leads
			l.judge()
			l.mu.Unlock()
		case <-l.observed:
			l.mu.Lock()
			close(l.others)
			l.others = make(chan struct{})
			l.mu.Unlock()
		case <-closing:
			return
		}
	}
}

// judge tells whether the node leads, if that has changed.
func (l *leadership) judge() {
	if leads := l.raft && !l.out; leads != l.leads {
		l.leads = leads
		l.edges++
		close(l.own)
		l.own = make(chan struct{})
	}
}

// takePart notes whether the node takes part in Raft.
func (l *leadership) takePart(does bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case does && l.out:
		l.stop, l.out = make(chan struct{}), false
	case !does && !l.out:
		close(l.stop)
		l.out = true
	}
	l.judge()
}

// stall returns a channel that is closed while the node takes no part in Raft.
func (l *leadership) stall() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stop
}

func (l *leadership) isStalled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out
}

func (l *leadership) now() (leads bool, edges uint64, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leads, l.edges, l.own
}

func (l *leadership) leaderChanged() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.others
}
