package membership_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/membership"
)

func TestTimingFor(t *testing.T) {
	const ms = time.Millisecond
	small := membership.Timing{Probe: 200 * ms, ProbeTimeout: 100 * ms, SuspicionMax: 3, Fanout: 3, Gossip: 1000 * ms}
	middle := membership.Timing{Probe: 150 * ms, ProbeTimeout: 75 * ms, SuspicionMax: 4, Fanout: 3, Gossip: 50 * ms}
	large := membership.Timing{Probe: 100 * ms, ProbeTimeout: 50 * ms, SuspicionMax: 6, Fanout: 4, Gossip: 50 * ms}
	tests := []struct {
		nodes int
		want  membership.Timing
		known time.Duration // to all, on average
	}{
		{1, small, 1200 * ms},
		{3, small, 1200 * ms},
		{12, small, 1600 * ms},
		{13, middle, 900 * ms},
		{64, middle, 1300 * ms},
		{65, large, 900 * ms},
		{200, large, 1100 * ms},
		{1_000, large, 1400 * ms},
		{10_000, large, 1750 * ms},
	}
	for _, tt := range tests {
		got := membership.TimingFor(tt.nodes)
		if got != tt.want {
			t.Errorf("%d nodes: %+v, want %+v", tt.nodes, got, tt.want)
		}
		if known := got.Detection(tt.nodes); (known - tt.known).Abs() > 60*ms {
			t.Errorf("%d nodes: a death is known after %v, want about %v", tt.nodes, known, tt.known)
		}
	}
}

// A death is known to all in about a second, also when several die one by one.
func TestDeathsAreKnownSoon(t *testing.T) {
	const nodes, deaths = 9, 4
	r := newRing(t)
	all, want := r.startAll(nodes)
	var took []time.Duration
	for range deaths {
		last := len(all) - 1
		dead := all[last]
		all = all[:last]
		began := time.Now()
		dead.kill()
		want[dead.id] = false
		for _, m := range all {
			waitAlive(t, m, want)
		}
		took = append(took, time.Since(began).Round(10*time.Millisecond))
	}
	slices.Sort(took)
	expected := membership.TimingFor(nodes).Detection(nodes)
	t.Logf("%d of %d nodes die: known to all after %v, %v on average", deaths, nodes, took, expected)
	// On a machine that is busy, probes are late and Lifeguard waits longer.
	if took[0] > 5*expected {
		t.Errorf("the first death known after %v, want about %v", took[0], expected)
	}
}

// When the cluster grows so much that it gets another timing, nobody is missed.
func TestAnotherSizeHasAnotherTiming(t *testing.T) {
	const tries = 3 // on a busy machine one that is late is missed, and its port may go to another program
	for try := 1; ; try++ {
		err := grow(t)
		if err == nil {
			return
		}
		if try == tries {
			t.Fatal(err)
		}
		t.Logf("again: %v", err)
	}
}

func grow(t *testing.T) error {
	r := newRing(t)
	all, want := r.startAll(4)
	for i := range 20 { // known from the state, and not there yet
		r.mu.Lock()
		r.addrs[api.NodeID(fmt.Sprint("new", i))] = fmt.Sprintf("127.0.0.1:%d", 1+i)
		r.mu.Unlock()
	}
	ends := time.After(4 * time.Second) // longer than those are forgotten that are not heard of
	for over := false; !over; {
		changed := all[0].Changed()
		for _, m := range all {
			if err := awaitAlive(m, want); err != nil {
				return err
			}
		}
		select {
		case <-changed:
			return fmt.Errorf("somebody was missed: %v", all[0].Alive())
		case <-ends:
			over = true
		}
	}
	all[3].kill()
	want[all[3].id] = false
	for _, m := range all[:3] {
		if err := awaitAlive(m, want); err != nil {
			return err
		}
	}
	return nil
}
