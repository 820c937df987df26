package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// wish is what the managers want of a task; told is false before they said.
type wish struct {
	told bool
	task *api.Task // nil: the task is not this node's (any more)
}

// worker brings one task to where it should be. Each step looks at what is
// there, so that it does not matter what happened before it.
type worker struct {
	agent  *Agent
	id     api.TaskID
	wish   cell[wish]
	events chan struct{} // holds one token after an event of the runtime
	status api.TaskStatus
	probes probes
	// fetching is the round of the last fetch that was begun, fetched how the last
	// one ended.
	fetching int64
	fetched  cell[fetched]
	// stopping is since when the task waits for the end of its connections, and
	// lookAgain that the next step is to see about them.
	stopping  time.Time
	lookAgain bool
}

// connectionPoll is how often a task that is to stop is looked at for open
// connections.
const connectionPoll = 150 * time.Millisecond

func newWorker(a *Agent, id api.TaskID) *worker {
	return &worker{agent: a, id: id, events: make(chan struct{}, 1)}
}

func (w *worker) tell(t *api.Task) {
	if old, _ := w.wish.Get(); old.told && old.task == t {
		return // waking up means asking the runtime
	}
	w.wish.Set(wish{true, t})
}

func (w *worker) poke() {
	select {
	case w.events <- struct{}{}:
	default:
	}
}

// run takes steps until nothing of the task is left on this node.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		want, changed := w.wish.Get()
		var retry <-chan time.Time
		if want.told {
			finished, err := w.step(ctx, want.task)
			if finished {
				return
			}
			if err != nil && ctx.Err() == nil {
				w.agent.Log.Warn("task step", "task", w.id, "err", err)
				retry = time.After(retryDelay)
			} else if w.lookAgain {
				retry = time.After(connectionPoll)
			} else if d, ok := w.probes.next(w.agent.Now()); ok {
				retry = time.After(d)
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-w.events:
		case <-retry:
		}
	}
}

// step does what is to be done next. An error is to be tried again; what went
// wrong with the task itself is reported. A task that has ended leaves no secrets.
func (w *worker) step(ctx context.Context, t *api.Task) (finished bool, err error) {
	finished, err = w.advance(ctx, t)
	if w.status.State.Terminal() && !finished {
		err = errors.Join(err, w.agent.Runtime.RemoveFiles(w.id))
	}
	return finished, err
}

func (w *worker) advance(ctx context.Context, t *api.Task) (finished bool, err error) {
	w.lookAgain = false
	if t == nil {
		return w.remove(ctx)
	}
	if t.Status.State == api.TaskPending && t.Desired == api.DesiredRun {
		return false, nil // placed, but waits for an address or a dependency
	}
	w.status = t.Status.Advance(w.status)
	if t.Desired == api.DesiredRemove {
		if finished, err = w.remove(ctx); finished {
			w.status.Removed = true
			w.agent.reports.status(w.id, w.status)
		}
		return finished, err
	}
	if w.status.State.Terminal() {
		w.probes.end()
		return false, w.release()
	}
	state, err := w.agent.Runtime.Task(ctx, w.id)
	if err != nil {
		return false, err
	}
	switch {
	case t.Desired == api.DesiredStop:
		return false, w.stop(ctx, t, state)
	case state.Phase == api.ContainerExited:
		w.exited(ctx, state)
		return false, nil
	case state.Phase != api.ContainerRunning && t.Desired != api.DesiredRun:
		return false, nil // it ends before it began
	}
	if t.Spec.Singleton {
		if ok, err := w.fenced(ctx, t, state); !ok {
			return false, err
		}
	}
	wanted, cancel := w.whileWanted(ctx)
	defer cancel()
	if state.Phase == api.ContainerRunning {
		w.fetch(ctx, t)
		err = w.observe(wanted, t, state)
	} else {
		err = w.start(wanted, t)
	}
	if wanted.Err() != nil {
		err = nil // the next step sees to what is wanted now
	}
	return false, err
}

// whileWanted returns a context that ends when the task is to be stopped or
// removed: an image may take long to come, or a kernel may never take the
// network, and neither may keep a task from its end.
func (w *worker) whileWanted(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for {
			want, changed := w.wish.Get()
			if want.task == nil || want.task.Desired == api.DesiredStop || want.task.Desired == api.DesiredRemove {
				cancel()
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return ctx, cancel
}

// start makes image, sandbox and network ready and runs the task.
func (w *worker) start(ctx context.Context, t *api.Task) error {
	w.report(api.TaskStatus{State: api.TaskPreparing})
	err := w.ensureImage(ctx, t)
	noImage := err != nil
	if err == nil {
		err = w.launch(ctx, t)
	}
	switch {
	case err == nil:
		state, err := w.agent.Runtime.Task(ctx, w.id)
		if err != nil {
			return err
		}
		if state.Phase == api.ContainerRunning {
			return w.observe(ctx, t, state)
		}
		w.poke()
		return nil
	case ctx.Err() != nil, errors.Is(err, api.ErrRuntimeUnavailable), errors.Is(err, errNoFiles):
		return err
	case t.Spec.Singleton && w.agent.Fence.Left() <= 0:
		return fmt.Errorf("its lease ended while it was started: %w", err)
	}
	w.report(api.TaskStatus{State: api.TaskRejected, Message: err.Error(), NoImage: noImage})
	return nil
}

// launch makes sandbox and network ready and starts the application; few tasks of
// a node do so at the same time.
func (w *worker) launch(ctx context.Context, t *api.Task) error {
	select {
	case w.agent.tasks.starts <- struct{}{}:
		defer func() { <-w.agent.tasks.starts }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.Spec.Singleton { // nothing of it is begun without a lease
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.agent.Fence.Left())
		defer cancel()
	}
	runtime := w.agent.Runtime
	netns, err := runtime.CreateSandbox(ctx, t, w.agent.sandboxNet(t))
	if err != nil {
		return err
	}
	if err := w.agent.attach(ctx, t, netns); err != nil {
		return err
	}
	if err := w.placeFiles(ctx, t); err != nil {
		return err
	}
	return runtime.StartTask(ctx, t)
}

// observe reports a running task's health, and ends one that cannot go on. It
// also adopts: a task that was running before this process began gets its
// network looked after again.
func (w *worker) observe(ctx context.Context, t *api.Task, state api.ContainerState) error {
	if !state.SandboxRunning {
		return w.fail(ctx, t, state, "its sandbox died, and its network with it")
	}
	if err := w.agent.attach(ctx, t, state.NetNS); err != nil {
		return err
	}
	status := api.TaskStatus{State: api.TaskRunning, ContainerID: state.ContainerID}
	if state.Health == api.HealthHealthy || state.Health == api.HealthUnhealthy {
		w.probes.end()
	}
	switch state.Health {
	case api.HealthNone:
		if w.status.State != api.TaskRunning && !w.serves(t, state) {
			status.State = api.TaskStarting
		}
	case api.HealthStarting:
		if w.status.State == api.TaskRunning {
			break // it has been healthy before
		}
		status.State = api.TaskStarting
		w.report(status)
		if w.probe(ctx, state) {
			status.State = api.TaskRunning
		}
	case api.HealthUnhealthy:
		return w.fail(ctx, t, state, "unhealthy: "+strings.TrimSpace(state.HealthOutput))
	}
	w.report(status)
	return nil
}

// fail ends a task that runs but is of no use.
func (w *worker) fail(ctx context.Context, t *api.Task, state api.ContainerState, why string) error {
	w.agent.Gossip.Broadcast(w.id)
	if err := w.agent.Runtime.StopTask(ctx, w.id, t.Spec.StopGrace); err != nil {
		return err
	}
	w.report(api.TaskStatus{State: api.TaskFailed, Message: why, ContainerID: state.ContainerID})
	return nil
}

// exited reports a task that ended by itself.
func (w *worker) exited(ctx context.Context, state api.ContainerState) {
	w.agent.Gossip.Broadcast(w.id)
	status := api.TaskStatus{State: api.TaskComplete, ExitCode: state.ExitCode, ContainerID: state.ContainerID}
	if state.ExitCode != 0 || state.Error != "" || state.OOMKilled {
		status.State = api.TaskFailed
		status.Message = w.explain(ctx, state)
	}
	w.report(status)
}

// explain says why a task ended, with the last of its output.
func (w *worker) explain(ctx context.Context, state api.ContainerState) string {
	why := fmt.Sprintf("exited with code %d", state.ExitCode)
	switch {
	case state.Error != "":
		return state.Error
	case state.OOMKilled:
		why = "out of memory"
	}
	var out bytes.Buffer
	if err := w.agent.Runtime.Logs(ctx, w.id, api.LogOptions{Tail: 5}, &out, &out); err != nil || out.Len() == 0 {
		return why
	}
	const most = 600
	text := strings.TrimSpace(out.String())
	if len(text) > most {
		text = "..." + text[len(text)-most:]
	}
	return why + ": " + text
}

// inUse reports whether a task that is to stop is left running for now, because
// connections to it are open: no node sends it new ones, and those it has may go
// on for as long as the grace period.
func (w *worker) inUse(t *api.Task, state api.ContainerState) bool {
	now := w.agent.Now()
	if w.stopping.IsZero() {
		w.stopping = now
	}
	if !state.SandboxRunning || t.Spec.StopGrace <= 0 {
		return false
	}
	open, err := w.agent.Links.OpenConnections(state.NetNS)
	switch {
	case err != nil:
		w.agent.Log.Warn("stopping a task without regard to its connections", "task", w.id, "err", err)
		return false
	case open == 0:
		return false
	case now.Sub(w.stopping) >= t.Spec.StopGrace:
		w.agent.Log.Info("stopping a task that still has connections: its grace period is over", "task", w.id, "open", open)
		return false
	}
	return true
}

// stop ends a task that is no longer wanted.
func (w *worker) stop(ctx context.Context, t *api.Task, state api.ContainerState) error {
	if state.Phase == api.ContainerRunning {
		w.agent.settle(ctx)
		if w.inUse(t, state) {
			w.lookAgain = true
			return nil
		}
		if err := w.agent.Runtime.StopTask(ctx, w.id, t.Spec.StopGrace); err != nil {
			return err
		}
		var err error
		if state, err = w.agent.Runtime.Task(ctx, w.id); err != nil {
			return err
		}
	}
	w.report(api.TaskStatus{State: api.TaskShutdown, ExitCode: state.ExitCode, ContainerID: state.ContainerID})
	return nil
}

// remove takes away all that the node holds of the task.
func (w *worker) remove(ctx context.Context) (finished bool, err error) {
	w.agent.settle(ctx)
	if err := w.agent.detach(ctx, w.id); err != nil {
		return false, err
	}
	if err := w.agent.Runtime.RemoveTask(ctx, w.id); err != nil {
		return false, err
	}
	return true, w.agent.Fence.Release(w.id)
}

// report notes a status and sends it if it says something new.
func (w *worker) report(s api.TaskStatus) {
	w.tellFetched(&s)
	next := w.status.Advance(s)
	next.At = w.status.At
	if next == w.status {
		return
	}
	if next.Fetched == w.status.Fetched {
		next.At = w.agent.Now().UTC().Round(0)
	}
	w.status = next
	w.agent.reports.status(w.id, next)
}
