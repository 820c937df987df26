// Command control measures the control plane: how long a cluster is without a
// leader, how much it writes, what it costs when nothing happens, and how it
// carries ten thousand nodes. It needs root and a Docker Engine.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/orch-dev/orch/tests/bench/figures"
)

// options are the command's flags.
type options struct {
	real, simulated                       bool
	kills, stops, clients, streams, tasks int
	seconds                               time.Duration
}

func main() {
	var opt options
	flag.BoolVar(&opt.real, "real", true, "measure real daemons, in a lab")
	flag.BoolVar(&opt.simulated, "simulated", true, "measure a manager with simulated nodes")
	flag.IntVar(&opt.kills, "kills", 50, "leaders that are killed")
	flag.IntVar(&opt.stops, "stops", 10, "leaders that are stopped politely")
	flag.IntVar(&opt.clients, "clients", 64, "clients that write at the same time")
	flag.DurationVar(&opt.seconds, "time", 10*time.Second, "how long they write, and how long an idle cluster is looked at")
	flag.IntVar(&opt.streams, "streams", 10_000, "nodes that follow the state")
	flag.IntVar(&opt.tasks, "tasks", 100_000, "tasks in the state that they follow")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, opt)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "control:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, opt options) error {
	machine, err := figures.ThisMachine()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "control plane:", machine)
	if opt.real {
		if err := real(ctx, out, opt); err != nil {
			return err
		}
	}
	if opt.simulated {
		return simulated(ctx, out, opt)
	}
	return nil
}

// real measures real daemons on the nodes of a lab.
func real(ctx context.Context, out io.Writer, opt options) error {
	c, down, err := newCluster(ctx)
	if err != nil {
		return err
	}
	defer down()
	for _, measure := range []func(context.Context, io.Writer, options) error{c.idle, c.writes, c.killed, c.stopped} {
		if err := measure(ctx, out, opt); err != nil {
			return err
		}
	}
	return nil
}
