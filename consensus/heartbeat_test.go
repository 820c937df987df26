package consensus_test

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
)

// counted counts the messages that are written to a connection: Raft writes each at
// once.
type counted struct {
	net.Conn
	written *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	c.written.Add(1)
	return c.Conn.Write(b)
}

// A leader with nothing to do sends each follower three heartbeats within an election
// timeout, not the seven that Raft would, and little else.
func TestHeartbeatsAreFew(t *testing.T) {
	const followers, looked = 2, 100
	var sent atomic.Int64 // by whoever leads: answers go into connections that were not dialled
	peers := cluster(t, 1+followers, func(c *consensus.Config) {
		c.Transport.OnDial(func(conn net.Conn) net.Conn { return counted{conn, &sent} })
	})
	propose(t, peers, "before")
	before, began := sent.Load(), time.Now()
	await(t, "heartbeats", func() error {
		if n := sent.Load() - before; n < followers*looked {
			return fmt.Errorf("%d messages were sent", n)
		}
		return nil
	})
	timeouts := float64(time.Since(began)) / float64(api.DefaultElectionTimeout)
	rate := float64(sent.Load()-before) / followers / timeouts
	t.Logf("%.1f messages to each follower in an election timeout", rate)
	if rate > 4 {
		t.Errorf("%.1f messages to each follower in an election timeout, want about 3", rate)
	}
}
