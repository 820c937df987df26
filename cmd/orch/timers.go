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
func (m *member) followTimers(ctx context.Context) error {
	m.measureDisk()
	for ctx.Err() == nil {
		changed, led := m.replica.Changed(), m.replica.Raft.LeaderChanged()
		var again <-chan time.Time
		if !m.current() {
			again = time.After(viewPoll)
		} else if err := m.retime(); err != nil {
			m.d.log.Error("cannot go by the cluster's election timeout", "err", err)
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

func (m *member) retime() error {
	snap, raft := m.replica.Snapshot(), m.replica.Raft
	want := snap.Cluster.Election()
	if err := m.d.saveElectionTimeout(want); err != nil {
		return err
	}
	leader, _, _ := raft.Leader()
	if raft.ElectionTimeout() == want || !manager.MayRetime(snap, m.id.Node, leader) {
		return nil
	}
	if err := raft.Retime(want); err != nil {
		return err
	}
	m.agent.Changed()
	m.warnDisk(want)
	return nil
}

// measureDisk finds out how fast the disk is, and says when that is too slow.
func (m *member) measureDisk() {
	write, err := measureFsync(m.d.stateDir)
	if err != nil {
		m.d.log.Warn("cannot measure the state directory's disk", "err", err)
		return
	}
	m.d.mu.Lock()
	m.d.disk = write
	m.d.mu.Unlock()
	m.warnDisk(m.replica.Raft.ElectionTimeout())
}

func (m *member) warnDisk(timeout time.Duration) {
	if warning := api.DiskWarning(m.d.hostname, m.d.diskAtStart(), timeout); warning != "" {
		m.d.log.Warn("the disk is slow for the managers' timers", "disk", warning)
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
