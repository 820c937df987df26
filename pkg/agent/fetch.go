package agent

import (
	"context"
	"errors"

	"github.com/orch-dev/orch/pkg/api"
)

// fetch gets the image of what will take the task's place, on the side: the task
// is looked after meanwhile. The outcome is reported once, for each round.
func (w *worker) fetch(ctx context.Context, t *api.Task) {
	if t.Fetch == nil || w.status.Fetched == t.Fetch.Round || w.fetching == t.Fetch.Round {
		return
	}
	round, next := t.Fetch.Round, *t
	w.fetching = round
	next.Spec.Image, next.Spec.Pin, next.Spec.RegistryAuth = t.Fetch.Image, t.Fetch.Pin, t.Fetch.RegistryAuth
	// How far it is, is not the task's state: a worker of its own keeps it.
	side := &worker{agent: w.agent, id: w.id, status: api.TaskStatus{State: api.TaskRunning}}
	w.agent.tasks.done.Go(func() {
		err := side.ensureImage(ctx, &next)
		for errors.Is(err, api.ErrRuntimeUnavailable) && ctx.Err() == nil {
			pause(ctx, retryDelay)
			err = side.ensureImage(ctx, &next)
		}
		if ctx.Err() == nil {
			w.fetched.Set(fetched{round, err})
			w.poke()
		}
	})
}

// fetched is how a fetch ended.
type fetched struct {
	round int64
	err   error
}

// tellFetched adds to a status how the last fetch ended.
func (w *worker) tellFetched(s *api.TaskStatus) {
	s.Fetched, s.FetchError = w.status.Fetched, w.status.FetchError
	if f, _ := w.fetched.Get(); f.round != 0 {
		if s.Fetched, s.FetchError = f.round, ""; f.err != nil {
			s.FetchError = f.err.Error()
		}
	}
}
