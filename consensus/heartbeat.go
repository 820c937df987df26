package consensus

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/quiet"
)

const (
	// heartbeats is how many a leader sends each follower within an election
	// timeout. Of those in a row all but one may be late.
	heartbeats = 3
	// raftHeartbeats is what Raft makes of a HeartbeatTimeout: the next heartbeat is
	// sent after one tenth to two tenths of it.
	raftHeartbeats = 10
	// aloneInterval is how often a leader looks whether it has followers now.
	aloneInterval = time.Second
)

// beat has the node, while it leads, send its heartbeats to all followers at the same
// time, until ctx ends. It closes the ticker.
//
// Left to itself Raft sends each follower its own, at times of their own and five to
// ten within an election timeout. What that costs is not so much the messages as that
// idle processes are woken for each, and for each answer.
//
// A leader that asks whether it still leads sends heartbeats to everyone at once.
// Raft's own come from a goroutine for each follower, in case the one that this goes
// through waits for the disk. For them to be no more than that, the leader goes by
// another HeartbeatTimeout, of which a leader makes no other use; the lease, and
// with it who may believe to lead, stays as it is.
func beat(ctx context.Context, r *raft.Raft, timeout time.Duration, ticker *quiet.Ticker) {
	defer ticker.Close()
	interval := timeout / heartbeats
	every := interval
	for {
		select {
		case <-ctx.Done():
			return
		case leads := <-r.LeaderCh():
			conf := r.ReloadableConfig()
			conf.HeartbeatTimeout, conf.ElectionTimeout = timeout, timeout
			every = 0
			if leads {
				conf.HeartbeatTimeout = raftHeartbeats * interval
				conf.ElectionTimeout = conf.HeartbeatTimeout // which must not be less
				every = interval
			}
			ticker.Reset(every)
			_ = r.ReloadConfig(conf) // it refuses nothing but timeouts below 5 ms
		case <-ticker.C:
			r.VerifyLeader() // whose answer Raft itself acts upon
			wait := interval
			if len(r.GetConfiguration().Configuration().Servers) < 2 {
				wait = aloneInterval
			}
			if wait != every {
				every = wait
				ticker.Reset(every)
			}
		}
	}
}
