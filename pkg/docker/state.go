package docker

import (
	"context"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
)

// Tasks returns the state of every task of which this node holds a container, or
// secrets and configs.
func (e *Engine) Tasks(ctx context.Context) (map[api.TaskID]api.ContainerState, error) {
	states, err := e.states(ctx)
	if err != nil {
		return nil, wrap("list tasks' containers", err)
	}
	ids, err := e.tasksWithFiles()
	for _, id := range ids {
		if _, ok := states[id]; !ok {
			states[id] = api.ContainerState{}
		}
	}
	return states, err
}

// Task returns the state of one task; the zero state if the node holds nothing
// of it.
func (e *Engine) Task(ctx context.Context, id api.TaskID) (api.ContainerState, error) {
	states, err := e.states(ctx, taskLabel(id))
	return states[id], wrap("inspect task "+string(id), err)
}

// states lists and then inspects: a list says neither exit codes nor PIDs.
func (e *Engine) states(ctx context.Context, labels ...string) (map[api.TaskID]api.ContainerState, error) {
	found, err := e.list(ctx, labels...)
	if err != nil {
		return nil, err
	}
	states := make(map[api.TaskID]api.ContainerState, len(found)/2)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, c := range found {
		g.Go(func() error {
			res, err := e.cli.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
			if cerrdefs.IsNotFound(err) { // removed since the list
				return nil
			}
			if err != nil {
				return err
			}
			id := api.TaskID(c.Labels[LabelTask])
			mu.Lock()
			defer mu.Unlock()
			s := states[id]
			if c.Labels[LabelRole] == RoleSandbox {
				addSandbox(&s, res.Container.State)
			} else {
				addApplication(&s, c.ID, res.Container.State)
			}
			states[id] = s
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return states, nil
}

func addSandbox(s *api.ContainerState, c *container.State) {
	if c.Running {
		s.SandboxRunning = true
		s.NetNS = netns(c)
	}
}

func addApplication(s *api.ContainerState, id string, c *container.State) {
	s.ContainerID = id
	s.StartedAt = parseTime(c.StartedAt)
	if c.Error != "" {
		s.Error = plain(c.Error)
	}
	switch {
	case c.Running: // also while paused
		s.Phase = api.ContainerRunning
		s.Health, s.HealthOutput = health(c.Health)
	case c.Status == container.StateCreated:
		s.Phase = api.ContainerCreated
	default:
		s.Phase = api.ContainerExited
		s.ExitCode = c.ExitCode
		s.OOMKilled = c.OOMKilled
		s.FinishedAt = parseTime(c.FinishedAt)
	}
}

func health(h *container.Health) (api.ContainerHealth, string) {
	if h == nil || h.Status == container.NoHealthcheck {
		return api.HealthNone, ""
	}
	var output string
	if n := len(h.Log); n > 0 {
		output = strings.TrimSpace(h.Log[n-1].Output)
	}
	return api.ContainerHealth(h.Status), output
}

// parseTime returns the zero time for what the engine has not set.
func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// Watch calls notify with the task whose containers changed: started, ended,
// were removed, ran out of memory, or changed in health. It first calls it with
// an empty id, when the stream stands: what happened before is to be read from
// Tasks, and nothing after is missed. It returns when ctx ends or the stream
// breaks, always with an error. notify must not block.
func (e *Engine) Watch(ctx context.Context, notify func(api.TaskID)) error {
	const op = "watch docker events"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := e.cli.Events(ctx, client.EventsListOptions{
		Filters: e.cfg.filter().Add("type", "container").
			Add("event", "start", "die", "destroy", "oom", "health_status"),
	})
	// Events returns with the response's header, or with an error waiting.
	select {
	case err := <-events.Err:
		return wrap(op, err)
	default:
		notify("")
	}
	for {
		select {
		case ev := <-events.Messages:
			if id := ev.Actor.Attributes[LabelTask]; id != "" {
				notify(api.TaskID(id))
			}
		case err := <-events.Err:
			return wrap(op, err)
		}
	}
}
