package membership

import (
	"math"
	"time"

	"github.com/hashicorp/memberlist"
)

// Timing is how often nodes look whether others live, and how long those that do
// not answer may object. The number of nodes decides it: a dead node is to be known
// to all about a second after its death, also where the word has far to go.
type Timing struct {
	// Probe is how often a node probes another, ProbeTimeout how long it waits for
	// the answer before it has others ask, for the rest of Probe.
	Probe, ProbeTimeout time.Duration
	// SuspicionMax bounds how long a suspect may object that few confirm to be
	// silent, in multiples of what it is where enough do (Lifeguard). In a small
	// cluster, nobody may be left who could: two dead of three nodes are known in 2.5 s.
	SuspicionMax int
	// Fanout is how many nodes the word is passed on to, every Gossip. Probes and
	// their answers carry it, too: where nodes are few, that is as soon.
	Fanout int
	Gossip time.Duration
}

const (
	// suspicionMult is how many probe rounds a suspect has to object, times
	// max(1, log10(nodes)), where another node confirms the suspicion. With less
	// than 3, no confirmation would be asked for.
	suspicionMult = 3
	// retransmitMult is how often a word is passed on, times log10(nodes+1).
	retransmitMult = 4
)

// TimingFor returns the timing of a cluster of about so many nodes. Each node
// probes one other in each round and is probed by one, on average, in any cluster.
func TimingFor(nodes int) Timing {
	switch {
	case nodes <= 12:
		return Timing{Probe: 200 * time.Millisecond, ProbeTimeout: 100 * time.Millisecond, SuspicionMax: 3, Fanout: 3, Gossip: time.Second}
	case nodes <= 64:
		return Timing{Probe: 150 * time.Millisecond, ProbeTimeout: 75 * time.Millisecond, SuspicionMax: 4, Fanout: 3, Gossip: 50 * time.Millisecond}
	}
	return Timing{Probe: 100 * time.Millisecond, ProbeTimeout: 50 * time.Millisecond, SuspicionMax: 6, Fanout: 4, Gossip: 50 * time.Millisecond}
}

// Detection is after what time a death is known to all of so many nodes, on average:
// until somebody probes the dead node; until the probe has failed; the suspicion
// (SWIM, with Lifeguard's extensions); and until the word has reached all.
func (t Timing) Detection(nodes int) time.Duration {
	n := float64(max(nodes, 2))
	suspicion := suspicionMult * max(1, math.Log10(n))
	rounds := func(fanout int) float64 { return math.Ceil(math.Log(n) / math.Log(float64(fanout+1))) }
	const probed = 2 // nodes with each probe: one by it, one by the answer
	spread := min(rounds(t.Fanout)*float64(t.Gossip), rounds(probed)*float64(t.Probe))
	return time.Duration((1+1+suspicion)*float64(t.Probe) + spread)
}

func (t Timing) set(c *memberlist.Config) {
	c.ProbeInterval, c.ProbeTimeout = t.Probe, t.ProbeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicionMult, t.SuspicionMax
	c.GossipInterval, c.GossipNodes = t.Gossip, t.Fanout
	c.RetransmitMult = retransmitMult
}
