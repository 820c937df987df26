package faults

import (
	"context"
	"testing"
	"time"
)

// How long a fault lasts, and how long the cluster has before the next one.
const (
	faultLasts = 2 * time.Second
	calmLasts  = time.Second
)

// Whatever happens to the leader, what clients see is one state that changes in
// one order, and no acknowledged write is ever lost.
func TestLinearizable(t *testing.T) {
	c := newCluster(t)
	c.giveDisks(t)
	c.leader(t)
	rng := newRand(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	leaders := c.watchLeaders(ctx)
	h, wait := c.record(ctx, rng)
	for round, end := 0, time.Now().Add(length(t, 0)); round == 0 || time.Now().Before(end); round++ {
		for _, i := range rng.Perm(len(faults)) {
			leader := c.leader(t)
			t.Logf("%5.1f s: the leader %s %s", time.Since(h.began).Seconds(), leader, faults[i].name)
			undo := faults[i].hit(t, c, leader)
			pause(ctx, faultLasts)
			undo()
			pause(ctx, calmLasts)
		}
	}
	c.leader(t)
	for key := range keyCount { // nothing that was acknowledged is lost
		h.do(c, clientCount, "n1", operation{key: keyName(key)})
	}
	stop()
	wait()
	h.check(t)
	leaders.check(t)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
