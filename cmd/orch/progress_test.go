package main

import (
	"errors"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// What a deploy makes of what it hears: it goes on, it is done, or it gives up.
func TestStackWatch(t *testing.T) {
	const goesOn, done, gone, hopeless = "goes on", "done", "gone", "hopeless"
	update := func(s api.UpdateState) *api.UpdateStatus { return &api.UpdateStatus{State: s} }
	tests := []struct {
		name   string
		index  api.Index
		status []api.ServiceStatus
		want   string
	}{
		{"of before the change", 6, []api.ServiceStatus{{Converged: true}}, goesOn},
		{"all of it runs", 7, []api.ServiceStatus{{Converged: true}, {Converged: true}}, done},
		{"a part of it runs", 7, []api.ServiceStatus{{Converged: true}, {Desired: 1}}, goesOn},
		{"a task failed twice", 7, []api.ServiceStatus{{Desired: 1, Failures: 2}}, goesOn},
		{"a task fails again and again", 7, []api.ServiceStatus{{Desired: 1, Failures: 3}}, hopeless},
		{"a task failed for good", 7, []api.ServiceStatus{{Desired: 1, Failures: 1, GaveUp: true}}, hopeless},
		{"an update goes on", 7, []api.ServiceStatus{{Desired: 1, Failures: 3, Update: update(api.UpdateRunning)}}, goesOn},
		{"its tasks are watched", 7, []api.ServiceStatus{{Converged: true, Update: update(api.UpdateRunning)}}, goesOn},
		{"it is paused", 7, []api.ServiceStatus{{Desired: 1, Update: update(api.UpdatePaused)}}, hopeless},
		{"it goes back", 7, []api.ServiceStatus{{Name: "web", Desired: 1, Update: update(api.RollbackRunning)}}, goesOn},
		{"it went back", 7, []api.ServiceStatus{{Name: "web", Converged: true, Update: update(api.RollbackComplete)}}, hopeless},
		{"an earlier one went back", 7, []api.ServiceStatus{{Name: "db", Converged: true, Update: update(api.RollbackComplete)}}, done},
		{"the stack is no more", 7, nil, gone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &stackWatch{goal: goal{stack: "blog", index: 7, updated: map[string]bool{"web": true}}, show: func(*api.StackStatus) {}, now: time.Now}
			err := w.each(&api.StackStatus{Index: tt.index, Services: tt.status})
			got := goesOn
			switch {
			case errors.As(err, new(hopelessError)):
				got = hopeless
			case errors.Is(err, errConverged):
				got = done
			case errors.Is(err, errGone):
				got = gone
			case err != nil:
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("%s (%v), want %s", got, err, tt.want)
			}
		})
	}
}

func TestUnplaceableForLong(t *testing.T) {
	now := time.Unix(0, 0)
	w := &stackWatch{show: func(*api.StackStatus) {}, now: func() time.Time { return now }}
	waits := &api.StackStatus{Services: []api.ServiceStatus{{Desired: 1, Unplaceable: true}}}
	if err := w.each(waits); err != nil {
		t.Fatalf("at once: %v", err)
	}
	now = now.Add(unplaceablePatience + time.Second)
	if err := w.each(waits); !errors.As(err, new(hopelessError)) {
		t.Errorf("after long: %v", err)
	}
}

func TestParseScale(t *testing.T) {
	for _, args := range [][]string{nil, {"web"}, {"=3"}, {"web="}, {"web=-1"}, {"web=x"}, {"web=1", "web=2"}} {
		if req, err := parseScale(args); err == nil {
			t.Errorf("%q: %v", args, req.Replicas)
		}
	}
	req, err := parseScale([]string{"web=0", "db=2"})
	if err != nil || req.Replicas["web"] != 0 || req.Replicas["db"] != 2 {
		t.Errorf("%v, %v", req, err)
	}
}
