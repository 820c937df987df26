package consensus

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// askAgain is how soon a leader is asked again whose connections break while
	// they are made: its process is ending.
	askAgain = 5 * time.Millisecond
	// turns is how many voters would ask for an election within an election timeout,
	// one after the other, once the leader has gone: each has time to be elected
	// before the next would ask, so that they do not split the votes.
	turns = 2
	// farBehind is how many entries the state of a voter may lack before it lets all
	// others go first: if it led, writes would wait until it has applied them.
	farBehind = 256
)

// succeed has the node ask for an election as soon as the leader's process is gone,
// until ctx ends: its kernel closes its connections, and refuses new ones. That is
// known at once and for sure, where silence has to last for an election timeout, and
// for both followers of three. Of a machine that dies there is nothing but silence.
func (n *Node) succeed(ctx context.Context, r *raft.Raft, trans *transport, timeout time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.cfg.Transport.broken:
		}
		addr, leader := r.LeaderWithID()
		term := r.CurrentTerm()
		turn, votes := turnOf(r.GetConfiguration().Configuration().Servers, leader, raft.ServerID(n.id))
		if leader == "" || !votes || !n.refuses(ctx, addr, timeout) {
			continue
		}
		// Raft's own word on what is applied is what waits to be.
		if max(n.fsm.applied.Load(), n.stat("last_snapshot_index"))+farBehind < r.LastIndex() {
			turn += turns
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(turn) * timeout / turns):
		}
		if n.succeeded(r, leader, term) {
			continue
		}
		// What a leader says to its successor it says to itself: the others vote for
		// it though they have not noticed yet that their leader is gone.
		now := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
		if err := trans.TimeoutNow(raft.ServerID(n.id), trans.LocalAddr(), now, &raft.TimeoutNowResponse{}); err != nil {
			n.cfg.Log.Debug("did not ask for an election: silence will tell", "err", err)
		}
	}
}

// succeeded reports whether somebody else succeeds the leader of that term: it leads,
// or has the node's vote. One that asked, and got none because it lacks entries that
// this node has, does not.
func (n *Node) succeeded(r *raft.Raft, leader raft.ServerID, term uint64) bool {
	if r.State() != raft.Follower {
		return true
	}
	switch _, now := r.LeaderWithID(); now {
	case leader:
		return false
	case "":
		voted, err := n.disk.GetUint64(lastVoteTerm)
		return err != nil || voted > term
	default:
		return true
	}
}

// turnOf is the place of a voter among those that may succeed the leader; it votes if
// it has one.
func turnOf(servers []raft.Server, leader, voter raft.ServerID) (turn int, votes bool) {
	for _, server := range servers {
		switch {
		case server.Suffrage != raft.Voter || server.ID == leader:
		case server.ID == voter:
			return turn, true
		default:
			turn++
		}
	}
	return 0, false
}

// refuses reports whether nobody listens at an address of a machine that answers.
func (n *Node) refuses(ctx context.Context, addr raft.ServerAddress, timeout time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for ctx.Err() == nil {
		conn, err := n.cfg.Transport.dial(ctx, string(addr))
		switch {
		case err == nil:
			conn.Close()
			return false
		case errors.Is(err, syscall.ECONNREFUSED):
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(askAgain):
		}
	}
	return false
}
