package main

import (
	"context"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
)

// followTimers has this manager's Raft go by the cluster's election timeout, when it
// is its turn, and keeps that for the next start. It begins once the state is as new
// as the leader's.
func (g *managing) followTimers(ctx context.Context) error {
	g.measureDisk()
	for ctx.Err() == nil {
		changed, led := g.replica.Changed(), g.replica.Raft.LeaderChanged()
		var again <-chan time.Time
		if !g.current() {
			again = time.After(viewPoll)
		} else if err := g.retime(); err != nil {
			g.d.log.Error("cannot go by the cluster's election timeout", "err", err)
			again = time.After(renewRetry)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-led:
		case <-again:
		}
	}
	return nil
}

func (g *managing) retime() error {
	snap, raft := g.replica.Snapshot(), g.replica.Raft
	want := snap.Cluster.Election()
	if err := g.d.saveElectionTimeout(want); err != nil {
		return err
	}
	leader, _, _ := raft.Leader()
	if raft.ElectionTimeout() == want || !manager.MayRetime(snap, g.node.id.Node, leader) {
		return nil
	}
	if err := raft.Retime(want); err != nil {
		return err
	}
	g.node.agent.Changed()
	g.warnDisk(want)
	return nil
}

// measureDisk finds out how fast the disk is, and says when that is too slow.
func (g *managing) measureDisk() {
	write, err := measureFsync(g.d.stateDir)
	if err != nil {
		g.d.log.Warn("cannot measure the state directory's disk", "err", err)
		return
	}
	g.d.mu.Lock()
	g.d.disk = write
	g.d.mu.Unlock()
	g.warnDisk(g.replica.Raft.ElectionTimeout())
}

func (g *managing) warnDisk(timeout time.Duration) {
	if warning := api.DiskWarning(g.d.hostname, g.d.diskAtStart(), timeout); warning != "" {
		g.d.log.Warn("the disk is slow for the managers' timers", "disk", warning)
	}
}

// diskAtStart is what a synchronous write took, 0 before that is known.
func (d *daemon) diskAtStart() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.disk
}

// saveElectionTimeout keeps what the managers go by for the next start.
func (d *daemon) saveElectionTimeout(timeout time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id.ElectionTimeout == timeout {
		return nil
	}
	d.id.ElectionTimeout = timeout
	return d.id.save(d.stateDir)
}
