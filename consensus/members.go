package consensus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/api"
)

// Bootstrap makes the node the only member of a new Raft group. It is called
// once in a cluster's life, on its first manager.
func (n *Node) Bootstrap() error {
	self := raft.Server{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.cfg.Transport.Addr().String())}
	err := n.raft.Load().BootstrapCluster(raft.Configuration{Servers: []raft.Server{self}}).Error()
	if err != nil {
		return fmt.Errorf("bootstrap raft group: %w", err)
	}
	return nil
}

// AddMember gives the log to the node with that address, which has no vote until
// Promote, or changes a member's address; only the leader can. The node must be
// listening already.
func (n *Node) AddMember(ctx context.Context, id api.NodeID, addr string) error {
	if id != n.id {
		probe, err := n.cfg.Transport.dial(ctx, addr)
		if err != nil {
			return fmt.Errorf("add manager %s: it does not answer at %s: %w", id, addr, err)
		}
		probe.Close()
	}
	return n.change(ctx, "add", id, func(r *raft.Raft, timeout time.Duration) raft.Future {
		return r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(addr), 0, timeout)
	})
}

// Promote gives a member a vote; only the leader can. From the entry on the member
// counts in the quorum: it has to have the log.
func (n *Node) Promote(ctx context.Context, id api.NodeID, addr string) error {
	return n.change(ctx, "promote", id, func(r *raft.Raft, timeout time.Duration) raft.Future {
		return r.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, timeout)
	})
}

// RemoveServer takes a node out of the group; only the leader can. Removing
// one that is no member does nothing.
func (n *Node) RemoveServer(ctx context.Context, id api.NodeID) error {
	return n.change(ctx, "remove", id, func(r *raft.Raft, timeout time.Duration) raft.Future {
		return r.RemoveServer(raft.ServerID(id), 0, timeout)
	})
}

// change changes the members of the group.
func (n *Node) change(ctx context.Context, what string, id api.NodeID, start func(*raft.Raft, time.Duration) raft.Future) error {
	if err := n.await(ctx, start); err != nil {
		return fmt.Errorf("%s manager %s: %w", what, id, err)
	}
	return nil
}

// TransferLeadership hands the lead to the follower that is most up to date,
// and returns when that one has taken it. Without another voter it fails.
func (n *Node) TransferLeadership(ctx context.Context) error {
	// What is being proposed is finished first: Raft does not wait to learn whether
	// a quorum has it.
	n.proposing.Lock()
	defer n.proposing.Unlock()
	err := n.wait(ctx, func(r *raft.Raft, _ time.Duration) raft.Future { return r.LeadershipTransfer() })
	if err != nil {
		return fmt.Errorf("transfer lead: %w", err)
	}
	return nil
}

// Stats is a node's view of its Raft group.
type Stats struct {
	State string // leader, follower, candidate, shutdown
	Term  uint64
	// LastIndex is the newest entry in the log, CommitIndex the newest known
	// to be on a quorum, AppliedIndex the newest handed to the FSM.
	LastIndex    api.Index
	CommitIndex  api.Index
	AppliedIndex api.Index
	Peers        []Peer
	// LastContact is when a follower last heard from its leader; zero on the
	// leader and before the first contact.
	LastContact time.Time
}

// Peer is one member of the group, this node included.
type Peer struct {
	ID    api.NodeID
	Addr  string
	Voter bool
}

// Has reports whether a node is a member.
func (s Stats) Has(id api.NodeID) bool {
	return slices.ContainsFunc(s.Peers, func(p Peer) bool { return p.ID == id })
}

// Votes reports whether a node is a member that has a vote.
func (s Stats) Votes(id api.NodeID) bool {
	return slices.ContainsFunc(s.Peers, func(p Peer) bool { return p.ID == id && p.Voter })
}

// Stats returns the node's view of its group.
func (n *Node) Stats() Stats {
	s := Stats{
		State:        strings.ToLower(n.raft.Load().State().String()),
		Term:         n.raft.Load().CurrentTerm(),
		LastIndex:    api.Index(n.raft.Load().LastIndex()),
		CommitIndex:  api.Index(n.raft.Load().CommitIndex()),
		AppliedIndex: api.Index(n.raft.Load().AppliedIndex()),
	}
	if s.State != "leader" {
		s.LastContact = n.raft.Load().LastContact()
	}
	for _, srv := range n.raft.Load().GetConfiguration().Configuration().Servers {
		s.Peers = append(s.Peers, Peer{
			ID:    api.NodeID(srv.ID),
			Addr:  string(srv.Address),
			Voter: srv.Suffrage == raft.Voter,
		})
	}
	return s
}
