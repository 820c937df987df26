package manager

import (
	"context"
	"log/slog"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
)

// Members keeps the Raft group what the nodes' roles say, while its node leads: a
// manager that has caught up gets a vote, one that has moved is found at its new
// address, and who is no manager any more is removed.
type Members struct {
	Replica *Replica
	Tracker *Tracker
	// Applied asks a manager how much of the log it has applied.
	Applied func(ctx context.Context, node *api.Node) (api.Index, error)
	Log     *slog.Logger
}

const (
	// membersLook is how often, at most, the group is compared with the roles, and
	// how often it is while they differ.
	membersLook = 200 * time.Millisecond
	// membersIdle is after what time it is compared with a state that has not
	// changed: this node may lead now.
	membersIdle = time.Second
	// membersTimeout bounds one question, and one change.
	membersTimeout = 2 * time.Second
	// caughtUp is how many entries a manager may lack when it gets its vote: what
	// is written while it is asked.
	caughtUp = 256
)

// Run compares until ctx ends.
func (m *Members) Run(ctx context.Context) error {
	for {
		changed := m.Replica.Changed()
		if m.look(ctx) {
			select {
			case <-changed:
			case <-time.After(membersIdle):
			case <-ctx.Done():
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(membersLook):
		}
	}
}

// look reports whether the group is as it should be, as far as this node has a say
// in that, and else takes a step.
func (m *Members) look(ctx context.Context) (alike bool) {
	leads, snap := m.Replica.Leads(m.Tracker), m.Replica.Snapshot()
	if !leads || snap.Cluster == nil {
		return true // what it knows may be old: whom it would miss there is to stay
	}
	alike, err := m.step(ctx, snap)
	if err != nil && ctx.Err() == nil {
		m.Log.Warn("cannot change the managers' group", "err", err)
	}
	return alike
}

// step makes one change at most: the next is planned from what it led to. It
// reports whether there was none to make.
func (m *Members) step(ctx context.Context, snap *api.Snapshot) (alike bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, membersTimeout)
	defer cancel()
	stats := m.Replica.Raft.Stats()
	remove, moved, waiting := planMembers(snap, stats.Peers)
	if remove != "" {
		if leader, _, _ := m.Replica.Raft.Leader(); leader == remove {
			return false, m.Replica.Raft.TransferLeadership(ctx) // to one that removes this one
		}
		m.Log.Info("no manager any more", "node", remove)
		return false, m.Replica.Raft.RemoveServer(ctx, remove)
	}
	if moved != nil {
		m.Log.Info("a manager has moved", "node", moved.Hostname, "to", moved.APIAddr())
		if stats.Votes(moved.ID) {
			return false, m.Replica.Raft.Promote(ctx, moved.ID, moved.APIAddr())
		}
		return false, m.Replica.Raft.AddMember(ctx, moved.ID, moved.APIAddr())
	}
	for _, node := range waiting {
		applied, err := m.Applied(ctx, node)
		if err != nil || applied == 0 || applied+caughtUp < stats.CommitIndex {
			m.Log.Debug("a manager has not caught up", "node", node.Hostname, "applied", applied, "of", stats.CommitIndex, "err", err)
			continue
		}
		m.Log.Info("a manager has caught up and gets its vote", "node", node.Hostname, "applied", applied)
		return false, m.Replica.Raft.Promote(ctx, node.ID, node.APIAddr())
	}
	return len(waiting) == 0, nil
}

// planMembers returns a member that is to go and one that has another address, if
// any, and the managers that wait for their votes.
func planMembers(snap *api.Snapshot, peers []consensus.Peer) (remove api.NodeID, moved *api.Node, waiting []*api.Node) {
	for _, p := range peers {
		node := snap.Nodes[p.ID]
		switch {
		case node == nil || node.Role != api.RoleManager:
			remove = p.ID
		case p.Addr != node.APIAddr():
			moved = node
		case !p.Voter:
			waiting = append(waiting, node)
		}
	}
	return remove, moved, waiting
}
