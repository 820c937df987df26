package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func next(t *testing.T, w *store.Watch) []store.Delta {
	t.Helper()
	deltas, err := w.Next(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return deltas
}

func TestWatchDeliversObjectsAsStored(t *testing.T) {
	s := store.New()
	w := s.Watch(0)
	apply(t, s, 1, service(0, "a", "web", "img"))
	apply(t, s, 2) // nothing to tell
	apply(t, s, 3, deleted(service(1, "a", "", "")))

	stored := service(1, "a", "web", "img")
	stored.Service.Meta.Created, stored.Service.SpecVersion = 1, 1
	want := []store.Delta{{Index: 1, Changes: []api.Change{stored}}, {Index: 3, Changes: []api.Change{deleted(stored)}}}
	if diff := cmp.Diff(want, next(t, w), cmp.Comparer(sameAddr)); diff != "" {
		t.Errorf("deltas (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[1:], next(t, s.Watch(1)), cmp.Comparer(sameAddr)); diff != "" {
		t.Errorf("deltas after 1 (-want +got):\n%s", diff)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("nothing more to read: %v", err)
	}
}

func TestWatchOfWhatIsNotKept(t *testing.T) {
	s := store.New()
	for i := range api.Index(3) {
		var many []api.Change
		for j := range 5000 {
			many = append(many, task(0, fmt.Sprintf("t%d-%d", i, j), "", api.EndpointPending))
		}
		apply(t, s, i+1, many...)
	}
	for after, old := range []bool{true, true, false, false} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Watch(api.Index(after)).Next(ctx); errors.Is(err, store.ErrTooOld) != old {
			t.Errorf("watch after %d: %v; too old should be %v", after, err, old)
		}
	}
}

func TestRestoreEndsWatches(t *testing.T) {
	s := store.New()
	apply(t, s, 1, service(0, "a", "web", "img"))
	saved := save(t, s)
	w, changed, before := s.Watch(1), s.Changed(), s.Snapshot()

	if err := s.Restore(bytes.NewReader(saved)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("not reported as a change")
	}
	if _, err := w.Next(within(t)); !errors.Is(err, store.ErrTooOld) {
		t.Errorf("watch from before: %v", err)
	}
	if got := s.Snapshot(); got == before || got.Index != 1 || len(got.Services) != 1 {
		t.Errorf("snapshot after restore: %+v", got)
	}
	w = s.Watch(s.Snapshot().Index)
	apply(t, s, 2, service(0, "b", "db", "img"))
	if got := next(t, w); len(got) != 1 || got[0].Index != 2 {
		t.Errorf("deltas after restore: %+v", got)
	}
}

func TestWait(t *testing.T) {
	s := store.New()
	go func() {
		for i := range api.Index(5) {
			s.Apply(i+1, nil)
		}
	}()
	if err := s.Wait(within(t), 5); err != nil {
		t.Error(err)
	}
	if s.Index() != 5 {
		t.Errorf("index %d, want 5", s.Index())
	}
}

// Watches and snapshots taken while entries are applied agree with each other,
// and see every change once and in order.
func TestWatchersAndSnapshotsWhileApplying(t *testing.T) {
	const entries, watchers = 2000, 4
	s := store.New()
	var group sync.WaitGroup
	for range watchers {
		group.Go(func() {
			snap := s.Snapshot()
			w := s.Watch(snap.Index)
			for snap.Index < entries {
				deltas, err := w.Next(within(t))
				if err != nil {
					t.Error(err)
					return
				}
				for _, d := range deltas {
					if d.Index != snap.Index+1 {
						t.Errorf("delta %d follows %d", d.Index, snap.Index)
						return
					}
					snap = snap.With(d.Changes)
					snap.Index = d.Index
				}
				// The store may be ahead of the watch, never behind it.
				if now := s.Snapshot(); now.Index < snap.Index {
					t.Errorf("snapshot of %d after delta %d", now.Index, snap.Index)
				} else if now.Index == snap.Index && !cmp.Equal(now.Tasks, snap.Tasks, cmp.Comparer(sameTask)) {
					t.Errorf("at %d: snapshot and deltas disagree", now.Index)
				}
			}
		})
	}
	for i := range api.Index(entries) {
		id := fmt.Sprintf("t%d", i%10)
		old := s.Task(api.TaskID(id))
		switch {
		case old == nil:
			apply(t, s, i+1, task(0, id, "", api.EndpointPending))
		case i%3 == 0:
			apply(t, s, i+1, api.DeleteTask(old))
		default:
			apply(t, s, i+1, task(old.Meta.Modified, id, "", api.EndpointReady))
		}
	}
	group.Wait()
}

func sameTask(a, b *api.Task) bool { return a == b }
