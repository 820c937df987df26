package daemon

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
	return nil
}

// diskLook is how often a manager measures its disk: others may write there, too.
const diskLook = time.Minute

// watchDisk measures the disk, from the start on, and tells when it has become too
// slow for the managers' timers.
func (g *managing) watchDisk(ctx context.Context) error {
	slow := false
	for {
		write, err := measureFsync(g.d.stateDir)
		if err != nil {
			g.d.log.Warn("cannot measure the state directory's disk", "err", err)
		} else {
			g.d.setDiskSpeed(write)
			warning := api.DiskWarning(g.d.hostname, write, g.replica.Raft.ElectionTimeout())
			if warning != "" && !slow {
				g.d.log.Warn("the disk is slow for the managers' timers", "disk", warning)
			}
			slow = warning != ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(diskLook):
		}
	}
}

func (d *daemon) setDiskSpeed(write time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disk = write
}

// diskSpeed is what a synchronous write took, 0 before that is known.
func (d *daemon) diskSpeed() time.Duration {
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
