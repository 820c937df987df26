package agent

import (
	"testing"
	"time"
)

// A node whose lease is short reports more often than it would otherwise, also
// when it has nothing to say.
func TestHeartbeatFollowsLease(t *testing.T) {
	m, c := newMachine(), newCluster()
	c.snap.Cluster.LeaseTimeout = heartbeat / 10
	run(t, m, c)
	const reports = 40
	start := time.Now()
	await(t, "reports", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.reports >= reports
	})
	if took := time.Since(start); took > reports*heartbeat/4 {
		t.Errorf("%d reports took %v", reports, took)
	}
}
