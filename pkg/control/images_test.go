package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

func TestImageLookup(t *testing.T) {
	linux := api.Platform{OS: "linux", Arch: "arm64"}
	n1, n2 := &api.Node{Hostname: "n1"}, &api.Node{Hostname: "n2"}
	absent := api.ImageStatus{Reason: "not on the node"}
	for _, tt := range []struct {
		name     string
		here     []imageAnswer
		registry []imageAnswer
		pin      api.ImagePin
		warning  string
	}{
		{"one node built it", []imageAnswer{{n1, absent}, {n2, api.ImageStatus{Present: true, ID: "id1", Created: "2026-01-01T00:00:00Z"}}}, nil,
			api.ImagePin{ID: "id1"}, ""},
		{"one node built it, for its like", []imageAnswer{{n1, absent}, {n2, api.ImageStatus{Present: true, ID: "id1", Platform: linux}}}, nil,
			api.ImagePin{ID: "id1", Platform: linux}, ""},
		{"a registry has it for others, too", []imageAnswer{{n1, api.ImageStatus{Present: true, ID: "id1", Digest: "d1", Platform: linux}}}, nil,
			api.ImagePin{ID: "id1", Digest: "d1"}, ""},
		{"all pulled it", []imageAnswer{{n1, api.ImageStatus{Present: true, ID: "id1", Digest: "d1"}}, {n2, api.ImageStatus{Present: true, ID: "id1", Digest: "d1"}}}, nil,
			api.ImagePin{ID: "id1", Digest: "d1"}, ""},
		{"two built one each", []imageAnswer{
			{n1, api.ImageStatus{Present: true, ID: "id1", Created: "2026-01-02T00:00:00Z"}},
			{n2, api.ImageStatus{Present: true, ID: "id2", Created: "2026-01-01T00:00:00Z"}}}, nil,
			api.ImagePin{ID: "id1"}, "image i is not the same on all nodes: the newest is taken, that of n1"},
		{"only the registry has it", []imageAnswer{{n1, absent}}, []imageAnswer{{n1, absent}, {n2, api.ImageStatus{Pullable: true, Digest: "d1"}}},
			api.ImagePin{Digest: "d1"}, ""},
		{"the registry has a newer one", []imageAnswer{{n1, api.ImageStatus{Present: true, ID: "id1", Digest: "d1"}}},
			[]imageAnswer{{n1, api.ImageStatus{Present: true, ID: "id1", Pullable: true, Digest: "d2"}}}, api.ImagePin{Digest: "d2"}, ""},
		{"the registry has the same", []imageAnswer{{n1, api.ImageStatus{Present: true, ID: "id1", Digest: "d1"}}},
			[]imageAnswer{{n1, api.ImageStatus{Present: true, ID: "id1", Pullable: true, Digest: "d1"}}}, api.ImagePin{ID: "id1", Digest: "d1"}, ""},
		{"nobody has it", []imageAnswer{{n1, absent}}, []imageAnswer{{n1, absent}}, api.ImagePin{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &imageLookup{name: "i"}
			l.settle(tt.here)
			l.fromRegistry(tt.registry)
			if l.pin != tt.pin || l.warning != tt.warning {
				t.Errorf("pinned to %+v, warning %q", l.pin, l.warning)
			}
		})
	}
}

func TestKeepPin(t *testing.T) {
	snap := state()
	snap.Services["web"].Spec.Task.Pin = api.ImagePin{ID: "old"}
	for _, tt := range []struct {
		name    string
		spec    func(*api.ServiceSpec)
		resolve api.Resolve
		keep    bool
	}{
		{"the same name", func(*api.ServiceSpec) {}, api.ResolveChanged, true},
		{"the same name, to be looked up anew", func(*api.ServiceSpec) {}, api.ResolveAlways, false},
		{"another name", func(s *api.ServiceSpec) { s.Task.Image = "i:2" }, api.ResolveChanged, false},
		{"built anew", func(s *api.ServiceSpec) { s.Task.Pin.ID = "new" }, api.ResolveChanged, false},
		{"a new service", func(s *api.ServiceSpec) { s.Name = "blog_other" }, api.ResolveChanged, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec("blog_web", 8080)
			tt.spec(&s)
			before := s.Task.Pin
			if got := keepPin(snap, &s, tt.resolve); got != tt.keep {
				t.Errorf("kept: %v", got)
			}
			want := before
			if tt.keep {
				want = api.ImagePin{ID: "old"}
			}
			if s.Task.Pin != want {
				t.Errorf("pin %+v, want %+v", s.Task.Pin, want)
			}
		})
	}
}

// Credentials are kept for the tasks and shown to nobody.
func TestCredentials(t *testing.T) {
	snap := state()
	web := snap.Services["web"]
	web.Spec.Task.RegistryAuth = &api.RegistryAuth{Username: "u", Password: "planted"}
	web.Previous = &api.ServiceSpec{Task: api.TaskSpec{RegistryAuth: web.Spec.Task.RegistryAuth}}

	out := shown(web)
	if out.Spec.Task.RegistryAuth != nil || out.Previous.Task.RegistryAuth != nil {
		t.Error("shown")
	}
	if web.Spec.Task.RegistryAuth == nil || web.Previous.Task.RegistryAuth == nil {
		t.Error("lost")
	}

	changes, actions, err := planDeploy(snap, &api.DeployRequest{Stack: "blog", Services: []api.ServiceSpec{spec("blog_web", 8080)}}, ids(), time.Unix(0, 0))
	if err != nil || len(changes) != 0 || cmp.Diff([]api.ServiceChange{{Name: "blog_web", Action: "unchanged"}}, actions) != "" {
		t.Errorf("a deploy without credentials: %v, %v, %v", changes, actions, err)
	}
	renewed := spec("blog_web", 8080)
	renewed.Task.RegistryAuth = &api.RegistryAuth{Token: "t"}
	changes, _, err = planDeploy(snap, &api.DeployRequest{Stack: "blog", Services: []api.ServiceSpec{renewed}}, ids(), time.Unix(0, 0))
	if err != nil || len(changes) != 1 || !web.Spec.SameTasks(&changes[0].Service.Spec) || changes[0].Service.Update != nil {
		t.Errorf("new credentials replace tasks: %+v, %v", changes, err)
	}
}
