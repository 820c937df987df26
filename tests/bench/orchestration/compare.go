package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/orch-dev/orch/tests/bench/figures"
)

// contender is what keeps services running. Each call returns when what it asked
// for is so: tasks run, healthy if they are checked, and updates have ended.
type contender interface {
	name() string
	deploy(ctx context.Context, w workload) error
	scale(ctx context.Context, replicas int) error
	remove(ctx context.Context) error
}

// stackName is the stack that the contenders deploy, and compose what is in it.
const stackName = "web"

func compose(w workload) string {
	check := "disable: true"
	if w.checked {
		check = `test: ["CMD", "/probe", "check"], interval: 1s, timeout: 10s, retries: 5`
	}
	return fmt.Sprintf(`version: "3.8"
services:
  web:
    image: %s
    stop_grace_period: 1s
    healthcheck: {%s}
    deploy:
      replicas: %d
      update_config: {order: start-first, parallelism: 1, monitor: 1s}
`, image(w.version), check, w.replicas)
}

// workload is what a contender runs. A check of each task's health each second is an
// exec each: thirty tasks' take more than the two CPUs of a small machine, which is
// then all that is measured.
type workload struct {
	replicas int
	version  string
	checked  bool
}

// step is one thing that is measured.
type step struct {
	what string
	goal float64 // the part of Swarm's time that orch is to stay below
	took map[string]figures.Spread
}

// compare has the contenders take turns, so that each meets the machine in the
// same state.
func compare(ctx context.Context, out io.Writer, contenders []contender, rounds int) error {
	deploy := &step{"deploy of 12 replicas", 0.8, map[string]figures.Spread{}}
	scale := &step{"scale 12 -> 30", 0.8, map[string]figures.Spread{}}
	update := &step{"rolling update of 6, start-first, one at a time", 0.6, map[string]figures.Spread{}}
	for range rounds {
		for _, c := range contenders {
			measure := func(s *step, run func() error) error {
				start := time.Now()
				if err := run(); err != nil {
					return fmt.Errorf("%s: %s: %w", c.name(), s.what, err)
				}
				s.took[c.name()] = append(s.took[c.name()], time.Since(start))
				return nil
			}
			if err := measure(deploy, func() error { return c.deploy(ctx, workload{12, "v1", false}) }); err != nil {
				return err
			}
			if err := measure(scale, func() error { return c.scale(ctx, 30) }); err != nil {
				return err
			}
			if err := c.remove(ctx); err != nil {
				return fmt.Errorf("%s: remove: %w", c.name(), err)
			}
			if err := c.deploy(ctx, workload{6, "v1", true}); err != nil {
				return fmt.Errorf("%s: deploy what is updated: %w", c.name(), err)
			}
			if err := measure(update, func() error { return c.deploy(ctx, workload{6, "v2", true}) }); err != nil {
				return err
			}
			if err := c.remove(ctx); err != nil {
				return fmt.Errorf("%s: remove: %w", c.name(), err)
			}
		}
	}
	for _, s := range []*step{deploy, scale, update} {
		for _, c := range contenders {
			fmt.Fprintf(out, "%-48s %-6s %v\n", s.what, c.name(), s.took[c.name()])
		}
		if len(contenders) == 2 {
			ours, theirs := s.took[contenders[0].name()], s.took[contenders[1].name()]
			fmt.Fprintf(out, "%-48s        medians: %.2f of Swarm's time (must be at most %.1f)\n", "", ours.At(0.5).Seconds()/theirs.At(0.5).Seconds(), s.goal)
		}
	}
	return nil
}
