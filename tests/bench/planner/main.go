// Command planner measures how long the leader thinks: for a million tasks at
// once, for ten more on a full cluster, and for the whole row of planners with
// the store behind them, at growing sizes.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/scheduler"
	"github.com/orch-dev/orch/tests/bench/figures"
)

func main() {
	nodes := flag.Int("nodes", 10_000, "nodes of the cluster")
	tasks := flag.Int("tasks", 1_000_000, "tasks that are placed at once")
	loaded := flag.Int("loaded", 100_000, "tasks that run before ten more are placed")
	loop := flag.Int("loop", 100_000, "tasks of the largest run of the whole loop")
	flag.Parse()
	if err := run(os.Stdout, *nodes, *tasks, *loaded, *loop); err != nil {
		fmt.Fprintln(os.Stderr, "planner:", err)
		os.Exit(1)
	}
}

// memoryLimit is from when on the garbage collector works harder: a million tasks,
// each once as it was and once as it is planned, are 3 GB.
const memoryLimit = 3500 << 20

func run(out io.Writer, nodes, tasks, loaded, loop int) error {
	machine, err := figures.ThisMachine()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "planners:", machine)
	debug.SetMemoryLimit(memoryLimit)
	for _, n := range []int{nodes, loaded} {
		if err := onLoaded(out, nodes, n); err != nil {
			return err
		}
	}
	if err := atOnce(out, nodes, tasks); err != nil {
		return err
	}
	for _, n := range []int{loop / 4, loop / 2, loop} {
		if err := wholeLoop(out, max(1, nodes/10), n); err != nil {
			return err
		}
	}
	return nil
}

// atOnce places tasks of many services with constraints, preferences and
// reservations.
func atOnce(out io.Writer, nodes, tasks int) error {
	const perService = 1000
	snap := cluster(nodes)
	for s := range (tasks + perService - 1) / perService {
		addService(snap, s, min(perService, tasks-s*perService), "")
	}
	start, cpu := time.Now(), cpuTime()
	changes := scheduler.Plan(snap, now)
	took := time.Since(start)
	if err := allPlaced(changes, tasks); err != nil {
		return err
	}
	fmt.Fprintf(out, "%9d tasks onto %d nodes, constraints and spread: %8.2f s (must reach 60 s), %.2f s of CPU, %.0f tasks/s, at most %.2f GB of memory so far (4 GB)\n",
		tasks, nodes, took.Seconds(), (cpuTime() - cpu).Seconds(), float64(tasks)/took.Seconds(), peakGB())
	return nil
}

// onLoaded deploys one more service of ten tasks, a few times: the state that the
// leader planned for last is given the service, and what is new is planned.
func onLoaded(out io.Writer, nodes, running int) error {
	const perService = 1000
	snap := cluster(nodes)
	for s := range running / perService {
		addService(snap, s, perService, "running")
	}
	ran := snap.With([]api.Change{{Cluster: snap.Cluster}})
	var memory scheduler.Memory
	memory.Plan(ran, now)
	deployed := newService(running/perService, 10, running)
	runtime.GC()
	var took, planned []time.Duration
	for range 15 {
		start := time.Now()
		next := ran.With(deployed)
		begun := time.Now()
		changes := memory.Plan(next, now)
		took, planned = append(took, time.Since(start)), append(planned, time.Since(begun))
		if err := allPlaced(changes, 10); err != nil {
			return err
		}
	}
	slices.Sort(took)
	slices.Sort(planned)
	release()
	fmt.Fprintf(out, "       10 tasks onto %d nodes that run %6d: %6.1f ms in the middle of 15 runs, %.1f to %.1f (must reach 20 ms), of which the new state is made in %.1f\n",
		nodes, running, ms(took[len(took)/2]), ms(took[0]), ms(took[len(took)-1]), ms(took[len(took)/2]-planned[len(planned)/2]))
	return nil
}

func allPlaced(changes []api.Change, want int) error {
	placed := 0
	for _, c := range changes {
		if c.Task.Status.State == api.TaskAssigned {
			placed++
		}
	}
	if placed != want {
		return fmt.Errorf("%d of %d tasks were placed", placed, want)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// cpuTime is what this process has had of the CPUs, collecting garbage included.
func cpuTime() time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// peakGB is the most memory that this process has had.
func peakGB() float64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Maxrss) / (1 << 20)
}

// The state of one run is garbage before the next: give it back.
func release() { debug.FreeOSMemory() }
