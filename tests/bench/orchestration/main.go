// Command orchestration measures what people wait for: deploys, scaling and
// rolling updates, beside Docker Swarm on an engine of the same version, and how
// long services take to heal when a container or a node is lost. It needs root, a
// Docker Engine and the docker command.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options are the command's flags.
type options struct {
	rounds, exits, losses int
	swarm                 bool
}

func main() {
	var opt options
	flag.IntVar(&opt.rounds, "rounds", 3, "how often each contender deploys, scales and updates, taking turns")
	flag.BoolVar(&opt.swarm, "swarm", true, "compare with Docker Swarm")
	flag.IntVar(&opt.exits, "exits", 12, "containers that are killed")
	flag.IntVar(&opt.losses, "losses", 4, "nodes that are lost, every other one while it leads; 30 for figures worth quoting")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, opt)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "orchestration:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, opt options) error {
	fmt.Fprintf(out, "orchestration: %s, %d CPUs, load %s, %s\n", kernel(), runtime.NumCPU(), loadAverage(), runtime.Version())
	dir, err := os.MkdirTemp("", "orch-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := buildProbe(ctx, dir)
	if err != nil {
		return err
	}
	o, err := newOrch(ctx, dir, program)
	if err != nil {
		return err
	}
	defer o.close()
	contenders := []contender{o}
	if opt.swarm && opt.rounds > 0 {
		s, err := newSwarm(ctx, dir, program)
		if err != nil {
			return err
		}
		defer s.close()
		contenders = append(contenders, s)
	}
	if opt.rounds > 0 {
		if err := compare(ctx, out, contenders, opt.rounds); err != nil {
			return err
		}
	}
	if err := o.exits(ctx, out, opt.exits); err != nil {
		return err
	}
	return o.losses(ctx, out, opt.losses)
}

// spread are durations as a table row tells them.
type spread []time.Duration

func (s spread) at(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func (s spread) String() string {
	return fmt.Sprintf("min %s, median %s, p99 %s (%d times)", seconds(s.at(0)), seconds(s.at(0.5)), seconds(s.at(0.99)), len(s))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "unknown kernel"
	}
	return unix.ByteSliceToString(name.Release[:])
}

func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// patience is how long anything is waited for.
const patience = 3 * time.Minute

// await waits until check is content.
func await(ctx context.Context, what string, check func() error) error {
	const each = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
		case <-time.After(each):
		}
	}
}
