package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// decoded is what an agent reads of an update.
func decoded(encoded *rpc.Encoded) *api.Update {
	u := new(api.Update)
	if err := json.Unmarshal(bytes.Join(*encoded, nil), u); err != nil {
		panic(err)
	}
	return u
}

// fullView is what a node's session begins with: of each object the last word.
func fullView(node api.NodeID, snap *api.Snapshot) *api.Update {
	u := decoded(must(encodeUpdate(node, true, must(encodeNews(snap.Index, everything(snap))))))
	u.Changes = api.Merge(u.Changes)
	return u
}

// onSocket is the context of a call on the manager's own socket.
func onSocket(ctx context.Context) context.Context {
	return rpc.WithCaller(ctx, rpc.Caller{Local: true})
}

// follower is an agent as far as its session goes.
type follower struct {
	mu      sync.Mutex
	view    *api.Snapshot
	resets  int
	changed chan struct{}
}

func (f *follower) take(encoded *rpc.Encoded) error {
	u := decoded(encoded)
	f.mu.Lock()
	defer f.mu.Unlock()
	if u.Reset {
		f.view = &api.Snapshot{}
		f.resets++
	}
	next := *f.view.With(u.Changes)
	next.Index = u.Index
	f.view = &next
	close(f.changed)
	f.changed = make(chan struct{})
	return nil
}

// until waits for a view as new as index.
func (f *follower) until(t *testing.T, index api.Index) *api.Snapshot {
	t.Helper()
	for {
		f.mu.Lock()
		view, changed := f.view, f.changed
		f.mu.Unlock()
		if view != nil && view.Index >= index {
			return view
		}
		select {
		case <-changed:
		case <-time.After(time.Minute):
			t.Fatalf("the view does not get to %d: %+v", index, view)
		}
	}
}

// Whenever a session began, and whatever it was told together with other nodes,
// a node's view is in the end that of a session that begins now.
func TestSessions(t *testing.T) {
	s := newSite(t)
	var nodes []*follower
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(func() { stop(); running.Wait() })
	task := func(i int, version api.Index) *api.Task {
		return &api.Task{
			Meta: api.Meta{Modified: version}, ID: api.TaskID(fmt.Sprint("t", i)), ServiceID: "s", NodeID: api.NodeID(fmt.Sprint("w", i%3)),
			Spec: api.TaskSpec{Image: "i", Env: []string{"A=1"}}, Status: api.TaskStatus{State: api.TaskRunning, Message: fmt.Sprint("at ", version)},
		}
	}
	var last api.Index
	for i := range 9 {
		id := api.NodeID(fmt.Sprint("w", i))
		must(s.Replica.Commit(ctx, []api.Change{{Node: &api.Node{ID: id, Role: api.RoleWorker}}}))
		must(s.Replica.Commit(ctx, []api.Change{{Task: task(i, 0)}, {Network: &api.Network{ID: api.NetworkID(id), Name: string(id), Number: uint32(i + 1)}}}))
		f := &follower{changed: make(chan struct{})}
		nodes = append(nodes, f)
		running.Go(func() {
			if err := s.Session(onSocket(ctx), &api.SessionRequest{Node: id}, f.take); ctx.Err() == nil {
				t.Errorf("session of %s: %v", id, err)
			}
		})
		f.until(t, last)
		older := s.Replica.Task(api.TaskID(fmt.Sprint("t", i/2)))
		changes := []api.Change{{Task: task(i/2, older.Meta.Modified)}}
		if i%3 == 2 {
			changes = []api.Change{api.DeleteTask(older)}
		}
		last = must(s.Replica.Commit(ctx, changes))
		if i%3 == 2 {
			last = must(s.Replica.Commit(ctx, []api.Change{{Task: task(i/2, 0)}}))
		}
	}
	for i, f := range nodes {
		got := f.until(t, last)
		fresh := fullView(api.NodeID(fmt.Sprint("w", i)), s.Replica.Snapshot())
		want := (&api.Snapshot{}).With(fresh.Changes)
		want.Index = fresh.Index
		if diff := cmp.Diff(want, got, comparable, cmpopts.IgnoreUnexported(api.Snapshot{})); diff != "" || f.resets != 1 {
			t.Errorf("w%d: %d full views; what it has (-want +got):\n%s", i, f.resets, diff)
		}
		for _, task := range got.Tasks {
			if own := task.NodeID == api.NodeID(fmt.Sprint("w", i)); own != (task.Spec.Image != "") {
				t.Errorf("w%d has %s of %s with image %q", i, task.ID, task.NodeID, task.Spec.Image)
			}
		}
	}
}

// A node has one session: its next one ends it. And none once it is removed.
func TestSessionEnds(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	must(s.Replica.Commit(ctx, []api.Change{{Node: &api.Node{ID: "w"}}}))
	session := func() (*follower, chan error) {
		f, ended := &follower{changed: make(chan struct{})}, make(chan error, 1)
		go func() { ended <- s.Session(onSocket(ctx), &api.SessionRequest{Node: "w"}, f.take) }()
		f.until(t, 1)
		return f, ended
	}
	_, first := session()
	_, second := session()
	if err := <-first; api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("after the node opened another session: %v", err)
	}
	must(s.Replica.Commit(ctx, []api.Change{{Node: s.Replica.Node("w"), Delete: true}}))
	if err := <-second; api.CodeOf(err) != api.CodeDenied {
		t.Errorf("after the node was removed: %v", err)
	}
	if err := s.Session(onSocket(ctx), &api.SessionRequest{Node: "w"}, nil); api.CodeOf(err) != api.CodeDenied {
		t.Errorf("a node that was removed opens a session: %v", err)
	}
	if len(s.sessions.open) > 0 {
		t.Errorf("sessions are left: %v", s.sessions.open)
	}
}
