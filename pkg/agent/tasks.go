package agent

import (
	"context"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// concurrentStarts bounds the tasks that a node starts at the same time: more
// of them take longer for all, and starve what runs already.
const concurrentStarts = 2

// tasks holds a worker for each task that the node has something of.
type tasks struct {
	agent  *Agent
	starts chan struct{} // a token for each start under way
	mu     sync.Mutex
	all    map[api.TaskID]*worker
	done   sync.WaitGroup
}

func newTasks(a *Agent) *tasks {
	return &tasks{agent: a, starts: make(chan struct{}, concurrentStarts), all: make(map[api.TaskID]*worker)}
}

// run gives every task of this node a worker and tells it what is wanted, until
// ctx ends. What the runtime holds of tasks that the cluster no longer knows is
// removed.
func (ts *tasks) run(ctx context.Context) error {
	defer ts.done.Wait()
	adopted := false
	for ctx.Err() == nil {
		view, changed := ts.agent.view.Get()
		if view != nil && view.Cluster != nil {
			if !adopted {
				adopted = ts.adopt(ctx, view)
			}
			ts.assign(ctx, view)
		}
		retry := make(<-chan time.Time)
		if !adopted && view != nil {
			retry = time.After(retryDelay)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-retry:
		}
	}
	return nil
}

// adopt starts workers for what the runtime holds and the view does not, which
// will remove it.
func (ts *tasks) adopt(ctx context.Context, view *api.Snapshot) bool {
	found, err := ts.agent.Runtime.Tasks(ctx)
	if err != nil {
		ts.agent.Log.Warn("cannot list the containers", "err", err)
		return false
	}
	links, _ := ts.agent.links.Get()
	for id := range found {
		if view.Tasks[id] == nil {
			ts.worker(ctx, id)
		}
	}
	for id := range links {
		if view.Tasks[id] == nil {
			ts.worker(ctx, id)
		}
	}
	return true
}

// assign tells each worker what the view wants of its task; nil if the task is
// not there any more.
func (ts *tasks) assign(ctx context.Context, view *api.Snapshot) {
	for id, t := range view.Tasks {
		if t.NodeID == ts.agent.Node && !t.Status.Removed {
			ts.worker(ctx, id)
		}
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for id, w := range ts.all {
		t := view.Tasks[id]
		if t != nil && t.NodeID != ts.agent.Node {
			t = nil
		}
		if t != nil && view.Nodes[t.NodeID] != nil {
			t = t.Filled(view.Nodes[t.NodeID])
		}
		w.tell(t)
	}
}

// worker returns the worker of a task, which it starts if there is none.
func (ts *tasks) worker(ctx context.Context, id api.TaskID) *worker {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if w := ts.all[id]; w != nil {
		return w
	}
	w := newWorker(ts.agent, id)
	ts.all[id] = w
	ts.done.Go(func() {
		w.run(ctx)
		ts.mu.Lock()
		defer ts.mu.Unlock()
		delete(ts.all, id)
	})
	return w
}

// poke makes a task's worker look at the runtime again; without a task, all of
// them: events may have been missed.
func (ts *tasks) poke(id api.TaskID) {
	if id == "" {
		ts.pokeAll()
		return
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if w := ts.all[id]; w != nil {
		w.poke()
	}
}

func (ts *tasks) pokeAll() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, w := range ts.all {
		w.poke()
	}
}
