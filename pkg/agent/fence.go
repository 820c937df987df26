package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Fence ends the tasks of singletons when the node's lease with the managers
// does, whatever becomes of this process. Its times are the machine's own.
type Fence interface {
	Now() time.Duration
	// Left is how long the lease is good, Renew moves its end on.
	Left() time.Duration
	Renew(until time.Duration) error
	// Guard has a task ended with the lease, until it is released. Its container
	// is empty as long as it is not known.
	Guard(task api.TaskID, container string) error
	Release(task api.TaskID) error
}

// The lease is looked at every fencePoll when a singleton may have to stop, and else when
// that can be at the earliest, after fenceLook at the latest: its length may have
// changed, or the node's first singleton come, which looked at the lease itself.
const (
	fencePoll = 200 * time.Millisecond
	fenceLook = time.Second
)

// fenceMargin is how long before the end of its lease a singleton is stopped in
// good order, and how much of it there must be to start one.
func (a *Agent) fenceMargin() time.Duration {
	if view := a.View(); view != nil && view.Cluster != nil {
		return view.Cluster.FenceLease() / 3
	}
	return 0
}

// watchFence wakes the singletons' workers when the lease is about to end: no
// event tells them.
func (a *Agent) watchFence(ctx context.Context) error {
	for {
		spare := a.Fence.Left() - a.fenceMargin()
		wait := min(max(spare, fencePoll), fenceLook)
		if spare <= 0 && !a.tasks.pokeSingletons() {
			wait = fenceLook
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// fenced reports whether a singleton's task may run, or go on to. One that may
// not any more is stopped, with as much of its grace period as there is time for:
// what is left after that the guard kills.
func (w *worker) fenced(ctx context.Context, t *api.Task, state api.ContainerState) (bool, error) {
	fence := w.agent.Fence
	if err := fence.Guard(w.id, state.ContainerID); err != nil {
		return false, err
	}
	left := fence.Left()
	if left > w.agent.fenceMargin() {
		return true, nil
	}
	if state.Phase != api.ContainerRunning {
		w.agent.reports.signal() // the answer brings a lease
		w.lookAgain = true
		return false, nil
	}
	w.agent.Gossip.Broadcast(w.id)
	if err := w.agent.Runtime.StopTask(ctx, w.id, min(t.Spec.StopGrace, max(0, left/2))); err != nil {
		return false, fmt.Errorf("stop a singleton without a lease: %w", err)
	}
	w.report(api.TaskStatus{
		State: api.TaskFailed, ContainerID: state.ContainerID,
		Message: "ended by its node, which heard nothing of the managers for so long that they may start it elsewhere",
	})
	return false, nil
}

// release forgets a task that has surely ended.
func (w *worker) release() error {
	if w.status.State == api.TaskRejected {
		return nil // it may have been started nevertheless, until it is removed
	}
	return w.agent.Fence.Release(w.id)
}

// pokeSingletons makes the workers of singletons look at the runtime again, and reports
// whether there are any.
func (ts *tasks) pokeSingletons() (found bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, w := range ts.all {
		if want, _ := w.wish.Get(); want.task != nil && want.task.Spec.Singleton {
			w.poke()
			found = true
		}
	}
	return found
}
