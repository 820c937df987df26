package docker

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// The engine would first look after an hour.
func TestProbe(t *testing.T) {
	e := newEngine(t)
	for _, tt := range []struct {
		name string
		test []string
		want bool
	}{
		{"passes", []string{"CMD", "/app", "exists", "/app"}, true},
		{"fails", []string{"CMD", "/app", "exists", "/nosuch"}, false},
		{"cannot run", []string{"CMD", "/nosuch"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			task := newTask("serve")
			task.Spec.Health = &api.Healthcheck{Test: tt.test, Interval: time.Hour}
			startTask(t, e, task)
			s := waitState(t, e, task.ID, "running", func(s api.ContainerState) bool { return s.Phase == api.ContainerRunning })
			got, err := e.Probe(t.Context(), s.ContainerID)
			if got != tt.want || tt.want && err != nil {
				t.Errorf("healthy: %v, %v; want %v", got, err, tt.want)
			}
		})
	}
}

func TestProbeCommand(t *testing.T) {
	for _, tt := range []struct{ test, shell, want []string }{
		{[]string{"CMD", "redis-cli", "ping"}, nil, []string{"redis-cli", "ping"}},
		{[]string{"CMD-SHELL", "a && b"}, nil, []string{"/bin/sh", "-c", "a && b"}},
		{[]string{"CMD-SHELL", "a"}, []string{"/bin/bash", "-ec"}, []string{"/bin/bash", "-ec", "a"}},
		{[]string{"NONE"}, nil, nil},
		{nil, nil, nil},
	} {
		if diff := cmp.Diff(tt.want, probeCommand(tt.test, tt.shell)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.test, diff)
		}
	}
}
