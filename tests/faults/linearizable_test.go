package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// How long a fault lasts, and how long the cluster has before the next one.
const (
	faultLasts = 2 * time.Second
	calmLasts  = time.Second / 2
)

// Whatever happens to the leader, to a follower, or to two managers of the three at
// once, what clients see is one state that changes in one order, no acknowledged
// write is ever lost, and writes are taken again when it is over: while it lasts,
// too, if a quorum is left.
func TestLinearizable(t *testing.T) {
	c := newCluster(t)
	c.giveDisks(t)
	c.leader(t)
	rng := newRand(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	leaders := c.watchLeaders(ctx)
	h, wait := c.record(ctx, rng)
	turn := rng.IntN(len(victims))
	for round, end := 0, time.Now().Add(length(t, 0)); round == 0 || time.Now().Before(end); round++ {
		for _, i := range rng.Perm(len(faults)) {
			// In as many rounds as there are victims each gets every fault.
			c.strike(t, h, victims[(turn+round+i)%len(victims)], i, rng)
			pause(ctx, calmLasts)
		}
	}
	c.leader(t)
	for key := range keyCount { // nothing that was acknowledged is lost
		must(t, h.do(c, clientCount, "n1", operation{key: keyName(key)}, callLimit))
	}
	stop()
	wait()
	h.check(t)
	leaders.check(t)
}

// strike does something to some nodes, for a while, and sees to it that the cluster
// takes writes: from the rest meanwhile, if that is a quorum, and from those nodes
// after.
func (c *cluster) strike(t *testing.T, h *history, v victim, first int, rng *rand.Rand) {
	t.Helper()
	leader := c.leader(t)
	hit, rest := v.of(leader, c.others(leader, rng), rng)
	began := time.Now()
	var undo []func()
	for n, node := range hit {
		f := faults[first]
		if n > 0 { // that of the second is any
			f = faults[rng.IntN(len(faults))]
		}
		t.Logf("%5.1f s: %s, %s, %s", time.Since(h.began).Seconds(), v.name, node, f.name)
		undo = append(undo, f.hit(t, c, node))
	}
	before := h.written()
	if len(rest) > len(c.Nodes())/2 {
		c.takesWrites(t, h, rest[0])
	}
	time.Sleep(faultLasts - min(faultLasts, time.Since(began)))
	during, healed := h.written()-before, time.Now()
	for _, undo := range undo {
		undo()
	}
	for _, node := range hit {
		c.takesWrites(t, h, node)
	}
	t.Logf("%5.1f s: %d writes were acknowledged meanwhile, and after %.1f s they are taken again",
		time.Since(h.began).Seconds(), during, time.Since(healed).Seconds())
}

// takesWrites waits until a write through a node is acknowledged. One that was
// passed on to who answers no more is soon given up.
func (c *cluster) takesWrites(t *testing.T, h *history, node string) {
	t.Helper()
	n := 0
	await(t, node+" takes writes", func() bool {
		n++
		op := operation{key: keyName(n % keyCount), write: true, value: fmt.Sprintf("%s-%d-%d", node, time.Since(h.began), n)}
		return h.do(c, clientCount, node, op, faultLasts/2) == nil
	})
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
