package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/tests/bench/figures"
)

// exits kills one container after another, each of another slot, and measures
// from its end to the start of the one in its place, as the engine says.
func (o *orch) exits(ctx context.Context, out io.Writer, times int) error {
	if times == 0 {
		return nil
	}
	if err := o.deploy(ctx, workload{times, "v1", false}); err != nil {
		return err
	}
	tasks, err := o.serving(ctx, "n1")
	if err != nil {
		return err
	}
	var took figures.Spread
	for _, victim := range tasks {
		if _, err := o.docker.ContainerKill(ctx, victim.Status.ContainerID, client.ContainerKillOptions{Signal: "KILL"}); err != nil {
			return err
		}
		ended, err := o.ended(ctx, victim.Status.ContainerID)
		if err != nil {
			return err
		}
		began, err := o.begun(ctx, victim)
		if err != nil {
			return err
		}
		took = append(took, began.Sub(ended))
	}
	fmt.Fprintf(out, "%-48s %-6s %v (median must be at most 1 s)\n", "one task's exit -> its replacement started", o.name(), took)
	return o.remove(ctx)
}

// ended is when a container ended.
func (o *orch) ended(ctx context.Context, id string) (ended time.Time, err error) {
	err = await(ctx, "the container ends", func() error {
		res, err := o.docker.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		if res.Container.State.Running {
			return fmt.Errorf("%.12s runs", id)
		}
		ended, err = time.Parse(time.RFC3339Nano, res.Container.State.FinishedAt)
		return err
	})
	return ended, err
}

// begun waits until another task serves in a task's slot, and is when its container
// started.
func (o *orch) begun(ctx context.Context, before api.TaskEntry) (began time.Time, err error) {
	err = await(ctx, "another task in the place of "+before.Name(), func() error {
		tasks, err := o.serving(ctx, "n1")
		if err != nil {
			return err
		}
		i := slices.IndexFunc(tasks, func(t api.TaskEntry) bool { return t.Slot == before.Slot && t.ID != before.ID })
		if i < 0 {
			return errors.New("none serves")
		}
		res, err := o.docker.ContainerInspect(ctx, tasks[i].Status.ContainerID, client.ContainerInspectOptions{})
		if err != nil {
			return err
		}
		began, err = time.Parse(time.RFC3339Nano, res.Container.State.StartedAt)
		return err
	})
	return began, err
}
