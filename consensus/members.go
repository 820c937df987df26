package consensus

import (
	"context"
	"fmt"
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

// AddVoter makes the node with that address a full member, or changes its
// address; only the leader can. The node must be listening already: from the
// entry on it counts in the quorum, and a second manager that does not answer
// would leave the first without one.
func (n *Node) AddVoter(ctx context.Context, id api.NodeID, addr string) error {
	probe, err := n.cfg.Transport.dial(ctx, addr)
	if err != nil {
		return fmt.Errorf("add manager %s: it does not answer at %s: %w", id, addr, err)
	}
	probe.Close()
	err = n.await(ctx, func(r *raft.Raft, timeout time.Duration) raft.Future {
		return r.AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, timeout)
	})
	if err != nil {
		return fmt.Errorf("add manager %s at %s: %w", id, addr, err)
	}
	return nil
}

// RemoveServer takes a node out of the group; only the leader can. Removing
// one that is no member does nothing.
func (n *Node) RemoveServer(ctx context.Context, id api.NodeID) error {
	err := n.await(ctx, func(r *raft.Raft, timeout time.Duration) raft.Future {
		return r.RemoveServer(raft.ServerID(id), 0, timeout)
	})
	if err != nil {
		return fmt.Errorf("remove manager %s: %w", id, err)
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
