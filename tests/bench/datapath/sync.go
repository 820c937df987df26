package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/loadbalancer"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// sync measures how long a plan takes into an empty kernel, and one change of a
// backend after it.
func sync(out io.Writer, opt options) error {
	endpoints := opt.frontends * opt.fanout
	n, err := newNode(0, dataplane.Config{
		MaxFrontends: uint32(opt.frontends) + 1, MaxBackends: uint32(endpoints) + 1, MaxEndpoints: uint32(endpoints),
	})
	if err != nil {
		return err
	}
	defer n.close()
	plan := n.plan(opt.frontends, opt.fanout)
	began, used := time.Now(), cpuTime(unix.RUSAGE_SELF)
	if err := n.apply(plan); err != nil {
		return err
	}
	used = cpuTime(unix.RUSAGE_SELF) - used
	row(out, fmt.Sprintf("full sync of %d frontends x %d backends", opt.frontends, opt.fanout),
		fmt.Sprintf("%.2f s", time.Since(began).Seconds()), "at most 2 s", fmt.Sprintf("%.2f s of CPU time", used.Seconds()))
	for _, c := range []struct {
		what, target string
		from         func(api.NetworkPlan) api.NetworkPlan
	}{
		{"one change: a backend begins to drain", "at most 1 ms", func(p api.NetworkPlan) api.NetworkPlan { return p }},
		{"the same, with all of the plan made anew", "", copied},
	} {
		var took series
		for i := range 4 * opt.rounds {
			plan = drained(c.from(plan), i*len(plan.Frontends)/(4*opt.rounds))
			runtime.GC() // of what the plan before was made of
			began := time.Now()
			if err := n.apply(plan); err != nil {
				return err
			}
			took = append(took, ms(time.Since(began)))
		}
		row(out, c.what, fmt.Sprintf("%.2f ms", took.median()), c.target,
			fmt.Sprintf("median of %d, best %.2f, worst %.2f", len(took), took.least(), took.most()))
	}
	return nil
}

// copied is the same plan in other memory, but for what it has of networks.
func copied(plan api.NetworkPlan) api.NetworkPlan {
	plan.Endpoints = slices.Clone(plan.Endpoints)
	plan.Frontends = slices.Clone(plan.Frontends)
	for i := range plan.Frontends {
		plan.Frontends[i].Backends = slices.Clone(plan.Frontends[i].Backends)
	}
	return plan
}

// drained is the next plan, in which the first backend of frontend i drains, or
// does no more. What has not changed it shares with the plan before.
func drained(plan api.NetworkPlan, i int) api.NetworkPlan {
	plan.Generation++
	plan.Frontends = slices.Clone(plan.Frontends)
	plan.Frontends[i].Backends = slices.Clone(plan.Frontends[i].Backends)
	plan.Frontends[i].Backends[0].Draining = !plan.Frontends[i].Backends[0].Draining
	return plan
}

// maglev measures the largest table.
func maglev(out io.Writer, opt options) error {
	const backends = 1000
	all := make([]loadbalancer.Backend, backends)
	for i := range all {
		all[i] = loadbalancer.Backend{Name: fmt.Sprintf("10.128.%d.%d:80", i/256, i%256), Weight: 1}
	}
	var took, used series
	m := loadbalancer.Size(backends)
	for range 4 * opt.rounds {
		began, before := time.Now(), cpuTime(unix.RUSAGE_THREAD)
		if table := loadbalancer.Table(all, m); len(table) != int(m) {
			return fmt.Errorf("the table has %d places, not %d", len(table), m)
		}
		took, used = append(took, ms(time.Since(began))), append(used, ms(cpuTime(unix.RUSAGE_THREAD)-before))
	}
	row(out, fmt.Sprintf("Maglev table, %d backends, M = %d", backends, m),
		fmt.Sprintf("%.2f ms", took.median()), "at most 10 ms", fmt.Sprintf("median of %d, best %.2f, worst %.2f; %.2f of CPU time", len(took), took.least(), took.most(), used.median()))
	return nil
}

// memory tells what the maps take at default sizes.
func memory(out io.Writer, _ options) error {
	n, err := newNode(0, dataplane.Config{})
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.apply(n.plan(100, 10)); err != nil {
		return err
	}
	bytes, err := n.mapBytes()
	if err != nil {
		return err
	}
	row(out, "kernel memory at default sizes", fmt.Sprintf("%.1f MB", float64(bytes)/(1<<20)), "at most 64 MB", "100 frontends x 10 backends; counters are for each CPU")
	return nil
}

// cpuTime is what a thread or the process has used, in user and kernel.
func cpuTime(who int) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(who, &used); err != nil {
		panic(err) // who is neither
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
