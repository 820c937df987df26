package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

func TestUpdatedSpec(t *testing.T) {
	before := spec("blog_web")
	before.Task.Env = []string{"A=1", "B=2"}
	before.Placement.Constraints = []api.Constraint{{Key: "node.role", Op: api.OpEqual, Value: "worker"}}
	two, ratio := 2, 0.5
	tests := []struct {
		name string
		req  api.UpdateRequest
		want func(*api.ServiceSpec)
	}{
		{"nothing", api.UpdateRequest{}, func(*api.ServiceSpec) {}},
		{"image and replicas", api.UpdateRequest{Image: "i:2", Replicas: &two}, func(s *api.ServiceSpec) { s.Task.Image, s.Replicas = "i:2", 2 }},
		{"environment", api.UpdateRequest{AddEnv: []string{"C=3", "B=x"}, RemoveEnv: []string{"A"}}, func(s *api.ServiceSpec) { s.Task.Env = []string{"B=x", "C=3"} }},
		{"a constraint less", api.UpdateRequest{RemoveConstraints: before.Placement.Constraints}, func(s *api.ServiceSpec) { s.Placement.Constraints = nil }},
		{"rules", api.UpdateRequest{Update: api.UpdateChange{Parallelism: &two, MaxFailureRatio: &ratio, FailureAction: api.FailureRollback}},
			func(s *api.ServiceSpec) {
				s.Update = api.UpdateConfig{Parallelism: 2, MaxFailureRatio: 0.5, FailureAction: api.FailureRollback}
			}},
		{"by force", api.UpdateRequest{Force: true}, func(s *api.ServiceSpec) { s.Task.Forced = 1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := before
			tt.want(&want)
			got, err := updatedSpec(before, &tt.req)
			if diff := cmp.Diff(want, got, comparable); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	for _, bad := range []api.UpdateRequest{
		{Update: api.UpdateChange{Order: "at-once"}}, {Rollback: api.UpdateChange{FailureAction: api.FailureRollback}}, {Replicas: new(-1)},
	} {
		if _, err := updatedSpec(before, &bad); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// What a user can do with an update, and where it goes back to.
func TestSteer(t *testing.T) {
	now := time.Unix(1000, 0)
	image := func(s *api.Service, image string) *api.Service {
		spec := s.Spec
		spec.Task.Image = image
		return s.WithSpec(spec, now)
	}
	v1 := state().Services["web"]
	v2 := image(v1, "i:2")
	did := func(s *api.Service, actions ...api.Steer) *api.Service {
		for _, a := range actions {
			next, _, err := steer(state(), s, a, now)
			if err != nil {
				t.Fatalf("%s: %v", a, err)
			}
			s = next
		}
		return s
	}
	scaled := func(s *api.Service, n int) *api.Service {
		spec := s.Spec
		spec.Replicas = n
		return s.WithSpec(spec, now)
	}
	tests := []struct {
		name     string
		got      *api.Service
		image    string
		previous string
		state    api.UpdateState
		replicas int
	}{
		{"updated", v2, "i:2", "i:1", api.UpdateRunning, 2},
		{"paused", did(v2, api.SteerPause), "i:2", "i:1", api.UpdatePaused, 2},
		{"resumed", did(v2, api.SteerPause, api.SteerResume), "i:2", "i:1", api.UpdateRunning, 2},
		{"taken back", did(v2, api.SteerRollback), "i:1", "", api.RollbackRunning, 2},
		{"paused on the way back", did(v2, api.SteerRollback, api.SteerPause), "i:1", "", api.RollbackPaused, 2},
		{"overtaken, it leads back to what was there before both", image(v2, "i:3"), "i:3", "i:1", api.UpdateRunning, 2},
		{"overtaken while paused", image(did(v2, api.SteerPause), "i:3"), "i:3", "i:1", api.UpdateRunning, 2},
		{"after a complete one it leads back to that", image(v2.WithUpdate(api.UpdateCompleted, "", now), "i:3"), "i:3", "i:2", api.UpdateRunning, 2},
		{"a rollback overtaken", image(did(v2, api.SteerRollback), "i:3"), "i:3", "i:1", api.UpdateRunning, 2},
		{"a scale is not taken back", did(scaled(v2, 5), api.SteerRollback), "i:1", "", api.RollbackRunning, 5},
		{"a scale is no update", scaled(v1, 5), "i:1", "", "", 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			previous, update := "", api.UpdateState("")
			if p := tt.got.Previous; p != nil {
				previous = p.Task.Image
			}
			if u := tt.got.Update; u != nil {
				update = u.State
			}
			if tt.got.Spec.Task.Image != tt.image || previous != tt.previous || update != tt.state || tt.got.Spec.Replicas != tt.replicas {
				t.Errorf("%s, before %q, %q, %d replicas", tt.got.Spec.Task.Image, previous, update, tt.got.Spec.Replicas)
			}
		})
	}
	for action, svc := range map[api.Steer]*api.Service{
		api.SteerRollback: v1, api.SteerPause: v1, api.SteerResume: v2.WithUpdate(api.UpdateCompleted, "", now), "dance": v2,
	} {
		if _, _, err := steer(state(), svc, action, now); err == nil {
			t.Errorf("%s of %+v is possible", action, svc.Update)
		}
	}
}
