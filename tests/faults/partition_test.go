package faults

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// A leader that is cut off from the others changes nothing any more and promises
// nothing; the others go on, and when the wire is back there is one state.
func TestPartition(t *testing.T) {
	c := newCluster(t)
	old := c.leader(t)
	must(t, c.tryWrite(old, "before", "1"))
	must(t, c.Cut(old))
	var rest []string
	for _, n := range c.Nodes() {
		if n.Name != old {
			rest = append(rest, n.Name)
		}
	}
	await(t, "the majority takes writes", func() bool { return c.tryWrite(rest[0], "majority", "1") == nil })

	began := time.Now()
	err := c.tryWrite(old, "minority", "1")
	if err == nil || !strings.Contains(err.Error(), "no quorum") {
		t.Errorf("the minority's answer to a write: %v", err)
	}
	t.Logf("the minority refused after %.1f s: %v", time.Since(began).Seconds(), err)
	if value, err := c.tryRead(old, "before"); err == nil {
		t.Errorf("the minority answers a read with %q, as if it knew the newest", value)
	}
	labels, err := c.stale(old)
	must(t, err)
	if labels["before"] != "1" || labels["majority"] != "" {
		t.Errorf("the minority's own state: %v", labels)
	}

	must(t, c.Heal(old))
	await(t, "what was cut off follows the newer term", func() bool {
		info, err := c.info(old)
		return err == nil && info.Raft != nil && strings.EqualFold(info.Raft.State, "follower") && info.Leader != ""
	})
	await(t, "it takes writes again", func() bool { return c.tryWrite(old, "after", "1") == nil })
	await(t, "all have one state", func() bool {
		first, err := c.stale(old)
		if err != nil || first["majority"] != "1" || first["after"] != "1" || first["minority"] != "" {
			return false
		}
		for _, node := range rest {
			if other, err := c.stale(node); err != nil || !maps.Equal(first, other) {
				return false
			}
		}
		return true
	})
}

// A cluster whose managers are all killed at once, again and again, under writes,
// comes back each time with all that it acknowledged.
func TestAllKilled(t *testing.T) {
	c := newCluster(t)
	c.leader(t)
	end := time.Now().Add(length(t, 0) / 4)
	for round := 0; round < 3 || time.Now().Before(end); round++ {
		key, value := "round", fmt.Sprint(round)
		writing, stop := context.WithCancel(t.Context())
		go func() {
			for n := 0; writing.Err() == nil; n++ {
				_ = c.tryWrite(c.Node(1+n%3).Name, "noise", fmt.Sprint(n))
			}
		}()
		await(t, "a write is acknowledged", func() bool { return c.tryWrite("n1", key, value) == nil })
		for _, n := range c.Nodes() {
			must(t, c.KillDaemon(context.Background(), n.Name))
		}
		stop()
		for _, n := range c.Nodes() {
			c.begin(t, n.Name)
		}
		var got string
		await(t, "a read is answered", func() bool {
			var err error
			got, err = c.tryRead("n2", key)
			return err == nil
		})
		if got != value {
			t.Fatalf("round %d: acknowledged %q is now %q", round, value, got)
		}
	}
}

func (c *cluster) tryWrite(node, key, value string) error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	return c.write(ctx, node, key, value)
}

func (c *cluster) tryRead(node, key string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	return c.read(ctx, node, key)
}
