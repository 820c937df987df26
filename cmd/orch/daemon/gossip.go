package daemon

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/membership"
)

const (
	// hintLife is how long a hint counts. The store says the same much sooner,
	// if it was true: a task may have recovered before its node could end it.
	hintLife = 15 * time.Second
	// maxHints bounds the hints kept.
	maxHints = 4096
)

// gossip is what the agent sees of the membership: who is suspected, and which
// tasks were seen to die.
type gossip struct {
	members *membership.Members
	keep    func(keys [][]byte) // takes other keys

	mu      sync.Mutex
	died    map[api.TaskID]time.Time // when it was heard
	changed chan struct{}
}

func newGossip(members *membership.Members, keep func([][]byte)) *gossip {
	return &gossip{members: members, keep: keep, died: make(map[api.TaskID]time.Time), changed: make(chan struct{})}
}

func (g *gossip) alive() map[api.NodeID]bool { return g.members.Alive() }

// Suspects implements agent.Gossip.
func (g *gossip) Suspects() map[api.NodeID]bool {
	suspects := make(map[api.NodeID]bool)
	for id, alive := range g.members.Alive() {
		if !alive {
			suspects[id] = true
		}
	}
	return suspects
}

// Died implements agent.Gossip.
func (g *gossip) Died() map[api.TaskID]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[api.TaskID]bool, len(g.died))
	for id := range g.died {
		out[id] = true
	}
	return out
}

// Changed implements agent.Gossip.
func (g *gossip) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// Broadcast implements agent.Gossip.
func (g *gossip) Broadcast(task api.TaskID) {
	g.note(task)
	g.members.Broadcast(task)
}

// SetKeys implements agent.Gossip.
func (g *gossip) SetKeys(keys [][]byte) { g.keep(keys) }

func (g *gossip) note(task api.TaskID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.died) >= maxHints {
		clear(g.died)
	}
	g.died[task] = time.Now()
	g.notify()
}

// forget drops the hints whose time is over.
func (g *gossip) forget(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := len(g.died)
	maps.DeleteFunc(g.died, func(_ api.TaskID, heard time.Time) bool { return now.Sub(heard) > hintLife })
	if len(g.died) != before {
		g.notify()
	}
}

func (g *gossip) notify() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// run joins the two sources of change until ctx ends.
func (g *gossip) run(ctx context.Context) error {
	changed := g.members.Changed()
	ticker := time.NewTicker(hintLife / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			g.forget(now)
		case task := <-g.members.Hints():
			g.note(task)
		case <-changed:
			changed = g.members.Changed() // before anyone is told, so that none is missed
			g.mu.Lock()
			g.notify()
			g.mu.Unlock()
		}
	}
}

// useGossipKeys has this node gossip with other keys, keeps them for the next start,
// and tells the managers that it has them.
func (m *member) useGossipKeys(keys [][]byte) {
	id := m.d.identity()
	if slices.EqualFunc(id.gossipRing(), keys, bytes.Equal) {
		return
	}
	if err := m.gossip.members.SetKeys(keys); err != nil {
		m.d.log.Error("cannot gossip with the cluster's keys", "err", err)
		return
	}
	if err := m.d.saveGossipKeys(keys); err != nil {
		m.d.log.Error("cannot keep the gossip keys", "err", err)
		return
	}
	m.agent.Changed()
}

func (d *daemon) saveGossipKeys(keys [][]byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.id
	d.id.GossipKey, d.id.OtherGossipKeys = keys[0], keys[1:]
	err := d.id.save(d.stateDir)
	if err != nil {
		d.id = before // for the next attempt
	}
	return err
}
