package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/lab"
)

// killsVariable is how many times all daemons are killed (`make test-long`).
const killsVariable = "ORCH_KILLS"

// TestCrashes kills the daemons of all nodes at once and starts them again, over
// and over, half of the times while they are still starting. Connections that are
// open notice nothing, and new ones are made all the while.
func TestCrashes(t *testing.T) {
	rounds, connections := setting(t, killsVariable, 3), 1000
	c := newCluster(t, lab.Options{Datapath: lab.DatapathTC})
	c.run(t, "n1", "cluster", "update", "--election-timeout", "1s") // on a busy disk, as the daemon advises
	c.deploy(t, probes, "v1")
	c.settle(t)
	live := c.openLive(t, connections)
	load := c.startLoad(t, c.names(), probePort)
	began := time.Now()
	for round := range rounds {
		for _, node := range c.names() {
			if err := c.KillDaemon(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		}
		live.mustAnswer(t, fmt.Sprintf("without a daemon in round %d", round+1))
		var starts errgroup.Group
		for _, node := range c.names() {
			starts.Go(func() error { return c.Start(t.Context(), node) })
		}
		if err := starts.Wait(); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 || round == rounds-1 {
			c.settle(t)
		}
		live.mustAnswer(t, fmt.Sprintf("after the start in round %d", round+1))
	}
	load.end()
	load.noFailures(t, "through all nodes", began)
	t.Logf("%d rounds in %.0f s: %d connections stayed open, %d were made meanwhile", rounds, time.Since(began).Seconds(), connections, len(load.attempts))
}

// live are connections that are kept, each to one replica.
type live []*liveConn

type liveConn struct {
	net.Conn
	answers *bufio.Reader
	replica string
}

// openLive opens connections through all nodes in turn.
func (c *cluster) openLive(t *testing.T, connections int) live {
	t.Helper()
	all := make(live, connections)
	for i := range all {
		conn, err := c.outside().dial(t.Context(), "tcp", c.addr(c.names()[i%len(c.names())], probePort))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		all[i] = &liveConn{Conn: conn, answers: bufio.NewReader(conn)}
	}
	all.mustAnswer(t, "they were just opened")
	return all
}

// mustAnswer asks on each connection who answers; it is who has done so before.
func (l live) mustAnswer(t *testing.T, when string) {
	t.Helper()
	var asks errgroup.Group
	asks.SetLimit(32)
	lost := make([]error, len(l))
	for i, conn := range l {
		asks.Go(func() error {
			lost[i] = conn.ask()
			return nil
		})
	}
	_ = asks.Wait()
	if err := errors.Join(lost...); err != nil {
		n := 0
		for _, err := range lost {
			if err != nil {
				n++
			}
		}
		t.Fatalf("%s %d of %d connections are lost: %.2000v", when, n, len(l), err)
	}
}

func (c *liveConn) ask() error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET /whoami HTTP/1.1\r\nHost: %s\r\n\r\n", c.RemoteAddr()); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var id identity
	if err := json.NewDecoder(resp.Body).Decode(&id); err != nil {
		return err
	}
	if c.replica == "" {
		c.replica = id.Replica
	}
	if id.Replica != c.replica || id.Client != lab.ClientAddr.String() {
		return fmt.Errorf("%s answers client %s, want %s", id.Replica, id.Client, c.replica)
	}
	return nil
}
