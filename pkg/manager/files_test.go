package manager

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// Of a stack's files those stay that a service names, or named before its last
// update, or that a task has which has not ended.
func TestUnusedFiles(t *testing.T) {
	with := func(id api.FileID) api.TaskSpec { return api.TaskSpec{Files: []api.FileRef{{ID: id}}} }
	snap := &api.Snapshot{
		Files: map[api.FileID]*api.File{},
		Services: map[api.ServiceID]*api.Service{"s": {ID: "s",
			Spec: api.ServiceSpec{Task: with("of the spec")}, Previous: &api.ServiceSpec{Task: with("of the spec before")}}},
		Tasks: map[api.TaskID]*api.Task{
			"a": {ID: "a", Spec: with("of a task that runs"), Status: api.TaskStatus{State: api.TaskRunning}},
			"b": {ID: "b", Spec: with("of a task that ended"), Status: api.TaskStatus{State: api.TaskShutdown}},
		},
	}
	for _, id := range []api.FileID{"of the spec", "of the spec before", "of a task that runs", "of a task that ended", "of nobody"} {
		snap.Files[id] = &api.File{ID: id, Stack: "blog", Data: []byte("x"), Meta: api.Meta{Modified: 7}}
	}
	snap.Files["a user's"] = &api.File{ID: "a user's"}
	want := []api.Change{
		{File: &api.File{ID: "of a task that ended", Meta: api.Meta{Modified: 7}}, Delete: true},
		{File: &api.File{ID: "of nobody", Meta: api.Meta{Modified: 7}}, Delete: true},
	}
	if diff := cmp.Diff(want, unusedFiles(snap)); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
}
