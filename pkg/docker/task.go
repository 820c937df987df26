package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
)

// StartTask starts the application in the task's sandbox, which must run. A
// task runs once: an application that is running or has ended is left as it is,
// and Tasks says which.
func (e *Engine) StartTask(ctx context.Context, t *api.Task) error {
	op := "start " + t.Name()
	image, err := e.localImage(ctx, &t.Spec)
	if errors.Is(err, api.ErrImageNotHere) {
		image, err = t.Spec.Image, nil // of a container that is there it does not matter
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	opts, err := e.cfg.application(t, image)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	found, err := e.create(ctx, t, opts)
	if err != nil {
		return wrap(op, err)
	}
	if found != nil && found.Status != container.StateCreated {
		return nil
	}
	_, err = e.cli.ContainerStart(ctx, opts.Name, client.ContainerStartOptions{})
	return wrap(op, err)
}

// StopTask sends the application its stop signal and, after grace (rounded up
// to seconds), SIGKILL. It returns when the application has ended; that it never
// ran, or is gone, is no error. The sandbox stays. Once the engine has been
// asked, it goes through with it even if ctx ends.
func (e *Engine) StopTask(ctx context.Context, id api.TaskID, grace time.Duration) error {
	op := "stop task " + string(id)
	found, err := e.list(ctx, taskLabel(id), LabelRole+"="+RoleTask)
	if err != nil {
		return wrap(op, err)
	}
	for _, c := range found {
		_, err := e.cli.ContainerStop(ctx, c.ID, client.ContainerStopOptions{Timeout: new(seconds(grace))})
		if err != nil && !cerrdefs.IsNotFound(err) {
			return wrap(op, err)
		}
	}
	return nil
}

// EndTask kills the task's application at once, and removes one that was made and
// has not started: nothing of the task runs from then on, nor is it started.
func (e *Engine) EndTask(ctx context.Context, id api.TaskID) error {
	op := "end task " + string(id)
	found, err := e.list(ctx, taskLabel(id), LabelRole+"="+RoleTask)
	if err != nil {
		return wrap(op, err)
	}
	for _, c := range found {
		switch c.State {
		case container.StateCreated:
			_, err = e.cli.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			_, err = e.cli.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: "KILL"})
		}
		if err != nil && !cerrdefs.IsNotFound(err) && !cerrdefs.IsConflict(err) { // a conflict: it has just ended
			return wrap(op, err)
		}
	}
	return nil
}

// RemoveTask removes what the node holds of the task, killing what still runs:
// application, anonymous volumes, sandbox, files. Named volumes stay.
func (e *Engine) RemoveTask(ctx context.Context, id api.TaskID) error {
	op := "remove task " + string(id)
	found, err := e.list(ctx, taskLabel(id))
	if err != nil {
		return wrap(op, err)
	}
	if err := e.removeAll(ctx, found); err != nil {
		return wrap(op, err)
	}
	if err := e.RemoveFiles(id); err != nil {
		return err
	}
	if err := os.RemoveAll(e.cfg.taskDir(id)); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// Purge removes every container of this node of this cluster and the files of
// its tasks. Named volumes stay.
func (e *Engine) Purge(ctx context.Context) error {
	found, err := e.list(ctx)
	if err != nil {
		return wrap("purge containers", err)
	}
	if err := e.removeAll(ctx, found); err != nil {
		return wrap("purge containers", err)
	}
	if err := e.sweepFiles(); err != nil {
		return fmt.Errorf("purge containers: %w", err)
	}
	if err := os.RemoveAll(e.cfg.tasksDir()); err != nil {
		return fmt.Errorf("purge containers: %w", err)
	}
	return nil
}

// list returns this node's containers that have all of the labels (KEY=VALUE).
func (e *Engine) list(ctx context.Context, labels ...string) ([]container.Summary, error) {
	res, err := e.cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: e.cfg.filter(labels...)})
	return res.Items, err
}

// removeAll removes the containers, applications before any sandbox, a few at a
// time: the engine's disk is also the one that Raft writes to.
func (e *Engine) removeAll(ctx context.Context, containers []container.Summary) error {
	for _, sandboxes := range []bool{false, true} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(4)
		for _, c := range containers {
			if (c.Labels[LabelRole] == RoleSandbox) == sandboxes {
				g.Go(func() error { return e.remove(ctx, c.ID) })
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) remove(ctx context.Context, id string) error {
	_, err := e.cli.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	if cerrdefs.IsConflict(err) { // somebody removes it at this moment: wait for that
		wait := e.cli.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: container.WaitConditionRemoved})
		select {
		case <-wait.Result:
			return nil
		case err = <-wait.Error:
		}
	}
	if cerrdefs.IsNotFound(err) {
		return nil
	}
	return err
}
