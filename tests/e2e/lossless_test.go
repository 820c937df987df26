package e2e

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/lab"
)

// What the long form of a test does, from `make test-long`. Where it is not set
// there is the short form only.
const (
	roundsVariable   = "ORCH_ROUNDS"           // of changes
	requestsVariable = "ORCH_REQUESTS"         // that are made in all, at least
	trialsVariable   = "ORCH_SINGLETON_TRIALS" // losses of a singleton's node
)

// setting is a number from the environment.
func setting(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// TestLossless is the long form of TestUpdates: rolling updates, rollbacks, nodes
// drained, services scaled and leaders stopped, over and over, under one load.
func TestLossless(t *testing.T) {
	rounds, requests := setting(t, roundsVariable, 0), setting(t, requestsVariable, 0)
	if rounds == 0 {
		t.Skipf("%s is not set: TestUpdates is the short form", roundsVariable)
	}
	c := newCluster(t, lab.Options{Datapath: lab.DatapathTC})
	// Whether a busy machine's disk has managers choose another leader, or a daemon
	// takes longer than a lease to start, or an answer that takes 1.7 s elsewhere
	// takes 3 s, is not what this is about: as orch advises for slow disks.
	c.run(t, "n1", "cluster", "update", "--election-timeout", "1s", "--lease", "10s")
	t.Setenv("STOP_GRACE", "5s")
	c.deploy(t, updates, "v1")
	c.settle(t)
	start := time.Now()
	load := c.startCrowd()
	defer load.noFailures(t, start)
	did, told := map[string]int{}, 0
	change := func(what string, run func()) {
		began := time.Now()
		run()
		c.settle(t)
		did[what]++
		made, failed := load.count()
		t.Logf("%7.1f s: %s took %.1f s; %d of %d requests have failed", time.Since(start).Seconds(), what, time.Since(began).Seconds(), failed, made)
		for _, f := range load.failures()[told:] {
			t.Logf("          at %.1f s, after %.1f s: %s: %v", f.at.Sub(start).Seconds(), f.took.Seconds(), f.addr, f.err)
			told++
		}
	}
	other, version := map[string]string{"v1": "v2", "v2": "v1"}, "v1"
	for round := 0; !t.Failed(); round++ {
		if made, _ := load.count(); round >= rounds && made >= requests {
			break
		}
		version = other[version]
		change("rolling update", func() { c.deploy(t, updates, version); c.answersWith(t, version) })
		if round%2 == 0 {
			version = other[version]
			change("rollback", func() { c.tell(t, "service", "rollback"); c.answersWith(t, version) })
			change("scale up and down", func() { c.testScaleUpdated(t) })
		} else {
			change("drain", func() { c.testDrain(t, c.names()[round/2%3]) })
		}
		if round%4 == 3 {
			change("stop of the leader", func() { c.testStopLeader(t) })
		}
	}
	made, failed := load.count()
	t.Logf("%v in %.0f s: %d of %d requests failed", did, time.Since(start).Seconds(), failed, made)
}
