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
	"syscall"
	"time"

	"github.com/orch-dev/orch/tests/bench/figures"
)

// options are the command's flags.
type options struct {
	rounds, exits, losses, changes int
	swarm                          bool
}

func main() {
	var opt options
	flag.IntVar(&opt.rounds, "rounds", 3, "how often each contender deploys, scales and updates, taking turns")
	flag.BoolVar(&opt.swarm, "swarm", true, "compare with Docker Swarm")
	flag.IntVar(&opt.exits, "exits", 12, "containers that are killed")
	flag.IntVar(&opt.losses, "losses", 4, "nodes that are lost, every other one while it leads; 30 for figures worth quoting")
	flag.IntVar(&opt.changes, "changes", 44, "tasks that are scaled away, until every node's kernel knows")
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
	machine, err := figures.ThisMachine()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "orchestration:", machine)
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
	if err := o.visible(ctx, out, opt.changes); err != nil {
		return err
	}
	if err := o.exits(ctx, out, opt.exits); err != nil {
		return err
	}
	return o.losses(ctx, out, opt.losses)
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
