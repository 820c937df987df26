package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/control"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/rpc"
)

// managing is what a manager runs beside what every node does. It comes and goes
// with the node's role; the node's tasks and its traffic do not notice.
type managing struct {
	parts
	node    *member
	keys    *keyring
	replica *manager.Replica
	tracker *manager.Tracker
	control *control.Server
	raft    *consensus.StreamLayer
	reserve []byte // see garbage
}

// garbage is how much more than otherwise a manager lets pile up before memory is
// collected, in bytes: as much as this that is never touched, and so takes no
// memory, counts as in use. What many writes leave behind is much, beside a state
// that is small: a manager that is busy would spend a sixth of its time collecting.
// It comes to this much more of resident memory at most.
const garbage = 8 << 20

// initManager starts what a manager runs, on a manager.
func (m *member) initManager() error {
	if m.id.Role != api.RoleManager {
		return m.d.forgetRaft()
	}
	return m.startManaging()
}

// forgetRaft removes what a manager keeps of the cluster's state.
func (d *daemon) forgetRaft() error {
	if err := os.RemoveAll(d.raftDir()); err != nil {
		return fmt.Errorf("remove raft state: %w", err)
	}
	return nil
}

// startManaging starts Raft, the leader's loop and the API.
func (m *member) startManaging() error {
	id := m.d.identity()
	keys, err := openKeyring(m.d.keyFile(), m.d.unlockKey)
	if err != nil {
		return err
	}
	addr := netip.AddrPortFrom(m.id.Addr, m.d.apiPort)
	state := store.New()
	layer := consensus.NewStreamLayer(net.TCPAddrFromAddrPort(addr), m.d.dialRaft)
	raft, err := consensus.New(consensus.Config{
		ID: m.id.Node, Addr: addr.String(), Dir: m.d.raftDir(),
		Transport: layer, FSM: state, Keys: keys.keys(), Log: m.d.log.With("part", "raft"),
		ElectionTimeout: id.ElectionTimeout,
	})
	if err != nil {
		return err
	}
	if err := m.d.dropOldKeys(keys); err != nil {
		return errors.Join(err, raft.Shutdown())
	}
	newID := func() string { return api.NewID(rand.Reader) }
	g := &managing{
		parts: m.d.newParts(), node: m, keys: keys, raft: layer,
		replica: &manager.Replica{Store: state, Raft: raft}, tracker: manager.NewTracker(),
		reserve: make([]byte, garbage),
	}
	g.control = control.New(control.Config{
		Node: m.id.Node, Replica: g.replica, Tracker: g.tracker, Peers: m.d.peers,
		NewID: newID, Rand: rand.Reader, Sign: m.d.signOutside, Now: time.Now, Log: m.d.log,
	})
	loop := manager.New(g.replica, g.tracker, newID, rand.Reader, time.Now, m.d.log.With("part", "manager"))
	members := &manager.Members{Replica: g.replica, Tracker: g.tracker, Applied: m.d.appliedBy, Log: m.d.log.With("part", "members")}
	g.run("raft", func(ctx context.Context) error {
		<-ctx.Done()
		return raft.Shutdown()
	})
	g.run("manager", loop.Run)
	g.run("gossip watch", g.watchAlive)
	g.run("members", members.Run)
	m.managing.Store(g)
	m.gossip.members.SetManager(addr)
	return nil
}

// stopManaging ends what a manager runs, once it has answered what it was asked.
func (m *member) stopManaging() {
	g := m.managing.Load()
	ctx, cancel := context.WithTimeout(m.ctx, handOverTime)
	defer cancel()
	if err := g.control.HandOver(ctx); err != nil {
		m.d.log.Warn("this manager ends before all that it was asked is answered", "err", err)
	}
	m.gossip.members.SetManager(netip.AddrPort{})
	m.managing.Store(nil)
	g.stop()
}

// isOut reports whether this manager is one no longer: the state says so, or the
// Raft group, which may come first and is then the last that is heard of it.
func (g *managing) isOut(id identity, view *api.Snapshot) bool {
	if view != nil && view.Nodes[id.Node] != nil && view.Nodes[id.Node].Role != api.RoleManager {
		return true
	}
	group := g.replica.Raft.Stats()
	return !id.Joining && len(group.Peers) > 0 && !group.Has(id.Node)
}

// follow has the manager go by the cluster's settings, once the agent runs.
func (g *managing) follow() {
	g.run("unlock key", g.followUnlockKey)
	g.run("timers", g.followTimers)
	g.run("disk", g.watchDisk)
}

// deliverRaft takes a connection from another manager's Raft.
func (m *member) deliverRaft(conn net.Conn) {
	if g := m.managing.Load(); g != nil {
		g.raft.Deliver(conn)
		return
	}
	_ = conn.Close()
}

// raftStats are there on a manager.
func (m *member) raftStats() (consensus.Stats, bool) {
	if g := m.managing.Load(); g != nil {
		return g.replica.Raft.Stats(), true
	}
	return consensus.Stats{}, false
}

// appliedBy asks a manager how much of the Raft log it has applied.
func (d *daemon) appliedBy(ctx context.Context, node *api.Node) (api.Index, error) {
	info, err := rpc.Call[api.Empty, api.RaftInfo](ctx, d.peers.Manager(node.APIAddr()), api.ProcRaft, &api.Empty{})
	if err != nil {
		return 0, err
	}
	return info.Applied, nil
}

const (
	// gossipSample is how often a manager notes who is alive.
	gossipSample = 250 * time.Millisecond
	// leaderSilence is the longest that a leader counts as silent which gossip holds
	// for alive: an election may have taken its time.
	leaderSilence = 500 * time.Millisecond
)

// watchAlive notes who is alive: by gossip, and of the leader by Raft. Of the one
// that is lost that is to be known when another leads.
func (g *managing) watchAlive(ctx context.Context) error {
	ticker := time.NewTicker(gossipSample)
	defer ticker.Stop()
	var leader api.NodeID
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if id, _, known := g.replica.Raft.Leader(); known {
				leader = id
			}
			alive := g.node.gossip.alive()
			g.tracker.Gossiped(alive, now)
			heard := g.replica.Raft.Stats().LastContact
			if oldest := now.Add(-leaderSilence); heard.Before(oldest) {
				heard = oldest
			}
			if leader != g.node.id.Node && alive[leader] {
				g.tracker.LeaderHeard(leader, heard)
			}
		}
	}
}

// bootstrap makes the first state of a new cluster.
func (g *managing) bootstrap(ctx context.Context, cluster *api.Cluster, self *api.Node) error {
	if err := g.replica.Raft.Bootstrap(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	if _, _, err := g.replica.Raft.WaitLeader(ctx); err != nil {
		return err
	}
	if _, err := g.replica.Commit(ctx, []api.Change{{Cluster: cluster}, {Node: self}}); err != nil {
		return fmt.Errorf("write the cluster's first state: %w", err)
	}
	return nil
}

// joinGroup gets this manager into the Raft group. Its identity is kept before it
// asks: once it has a vote the others need it, and a group of one that became two
// is lost without it.
func (g *managing) joinGroup(ctx context.Context, remote string) error {
	if err := g.d.saveJoining(true); err != nil {
		return err
	}
	err := g.becomeMember(ctx, remote)
	if err == nil {
		err = g.awaitVote(ctx)
	}
	switch api.CodeOf(err) {
	case api.CodeInvalid, api.CodeDenied, api.CodeNotFound:
		return fmt.Errorf("join through %s: %w", remote, err)
	}
	if err == nil {
		if err = g.d.saveJoining(false); err == nil {
			return nil
		}
	}
	return unfinished{fmt.Errorf("this node was admitted, but is not known to be among the managers yet; it goes on trying (see `orch info`): %w", err)}
}

// becomeMember asks for a place in the group, again while nobody leads.
func (g *managing) becomeMember(ctx context.Context, remote string) error {
	for {
		_, err := rpc.Call[api.AddMemberRequest, api.Empty](ctx, g.d.peers.Manager(remote), api.ProcAddMember, &api.AddMemberRequest{Node: g.node.id.Node})
		if api.CodeOf(err) != api.CodeUnavailable || pauseFor(ctx, votePoll) != nil {
			return err
		}
	}
}

// votePoll is how often a new manager looks whether it has its vote.
const votePoll = 50 * time.Millisecond

// awaitVote waits until a new manager has its copy of the cluster's state, and
// for that a vote.
func (g *managing) awaitVote(ctx context.Context) error {
	poll := time.NewTicker(votePoll)
	defer poll.Stop()
	self := g.node.id.Node
	for {
		known := g.replica.Snapshot().Nodes[self] != nil
		if known && g.replica.Raft.Stats().Votes(self) {
			return nil
		}
		select {
		case <-ctx.Done():
			what := "the managers have not given it a vote yet"
			if !known {
				what = "the cluster's state did not arrive"
			}
			return api.Errorf(api.CodeUnavailable, "%s: can the managers reach %s?", what, g.d.apiAddr(g.node.id.Addr))
		case <-poll.C:
		}
	}
}

// finishJoin goes on until this manager has its vote, and then has its agent ask it
// before others.
func (g *managing) finishJoin(ctx context.Context) error {
	home := g.d.apiAddr(g.node.id.Addr)
	for i := 0; ctx.Err() == nil; i++ {
		id := g.d.identity()
		others := slices.DeleteFunc(slices.Clone(id.Managers), func(addr string) bool { return addr == home })
		if len(others) == 0 {
			return nil
		}
		try, cancel := context.WithTimeout(ctx, enrollTimeout)
		err := g.joinGroup(try, others[i%len(others)])
		cancel()
		if err == nil {
			g.node.managers.SetHome(home)
			return nil
		}
		g.d.log.Warn("cannot join the managers", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}
