package control

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

const planted = "planted-94cd"

// password is a service of the stack "blog" that has a secret of that content.
func password(content string) api.DeployRequest {
	web := spec("blog_web", 8080)
	web.Task.Files = []api.FileRef{{Class: api.ClassSecret, Name: "blog_password", Target: "/run/secrets/password", Mode: 0o444}}
	return api.DeployRequest{Stack: "blog", Services: []api.ServiceSpec{web},
		Files: []api.FileSpec{{Class: api.ClassSecret, Name: "blog_password", Data: []byte(content)}}}
}

// A deploy with other content makes a version, which the services move to; with
// the same content, or that of before, it makes none.
func TestDeployMakesVersions(t *testing.T) {
	snap, newID := state(), ids()
	deploy := func(content string) (string, []string) {
		t.Helper()
		req := password(content)
		changes, actions, err := planDeploy(snap, &req, newID, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		snap = snap.With(changes)
		web := snap.ServiceByName("blog_web")
		ref := web.Spec.Task.Files[0]
		if got := string(snap.Files[ref.ID].Data); got != content {
			t.Errorf("the service has a secret of %q, want %q", got, content)
		}
		if req.Services[0].Task.Files[0].ID != "" {
			t.Error("the request was changed, which is planned from again after a conflict")
		}
		return actions[0].Action, describe(changes)
	}
	for _, step := range []struct {
		content, action string
		changes         []string
	}{
		{"first", "updated", []string{"put file id1", "put service web"}},
		{"first", "unchanged", nil},
		{"second", "updated", []string{"put file id4", "put service web"}},
		{"first", "updated", []string{"put service web", "put file id1"}}, // which is kept from being removed meanwhile
	} {
		action, changes := deploy(step.content)
		if action != step.action {
			t.Errorf("%s: the service is %s", step.content, action)
		}
		if diff := cmp.Diff(step.changes, changes); diff != "" {
			t.Errorf("%s: changes (-want +got):\n%s", step.content, diff)
		}
	}
}

func TestDeployOfFilesRefused(t *testing.T) {
	theirs := &api.File{ID: "f1", Class: api.ClassSecret, Name: "blog_password"}
	of := func(edit func(*api.DeployRequest)) api.DeployRequest {
		req := password("x")
		edit(&req)
		return req
	}
	for _, tt := range []struct {
		name string
		file *api.File
		req  api.DeployRequest
		err  string
	}{
		{"external and not there", nil, of(func(r *api.DeployRequest) { r.Files[0].External, r.Files[0].Data = true, nil }), "orch secret create blog_password FILE"},
		{"a user's", theirs, password("x"), "declare it external"},
		{"another stack's", &api.File{ID: "f1", Class: api.ClassSecret, Name: "blog_password", Stack: "shop"}, password("x"), `belongs to stack "shop"`},
		{"a config of that name is another thing", &api.File{ID: "f1", Class: api.ClassConfig, Name: "blog_password"}, password("x"), ""},
		{"external", theirs, of(func(r *api.DeployRequest) { r.Files[0].External, r.Files[0].Data = true, nil }), ""},
		{"too large", nil, password(strings.Repeat("x", 500<<10+1)), "at most 512000"},
		{"as large as possible", nil, password(strings.Repeat("x", 500<<10)), ""},
		{"empty", nil, password(""), "has nothing in it"},
		{"not declared", nil, of(func(r *api.DeployRequest) { r.Files = nil }), "which the stack does not name"},
		{"twice", nil, of(func(r *api.DeployRequest) { r.Files = append(r.Files, r.Files[0]) }), "is there twice"},
		{"no path", nil, of(func(r *api.DeployRequest) { r.Services[0].Task.Files[0].Target = "../etc/passwd" }), "no absolute path"},
		{"no mode", nil, of(func(r *api.DeployRequest) { r.Services[0].Task.Files[0].Mode = 0o4755 }), "at most 0777"},
	} {
		snap := state()
		if tt.file != nil {
			snap.Files = map[api.FileID]*api.File{tt.file.ID: tt.file}
		}
		err := tt.req.Validate()
		if err == nil {
			_, _, err = planDeploy(snap, &tt.req, ids(), time.Time{})
		}
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
		}
	}
}

// What a user makes, sees and removes: never what a secret is.
func TestFileCalls(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	for _, class := range []api.FileClass{api.ClassSecret, api.ClassConfig} {
		spec := api.FileSpec{Class: class, Name: "key", Data: []byte(planted)}
		made, err := s.CreateFile(ctx, &api.CreateFileRequest{Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.CreateFile(ctx, &api.CreateFileRequest{Spec: spec}); api.CodeOf(err) != api.CodeConflict {
			t.Errorf("made again: %v", err)
		}
		got := must(s.File(ctx, &api.FileRequest{Class: class, File: string(made.ID[:8])}))
		if shown := string(got.Data) == planted; shown != (class == api.ClassConfig) || got.Size != len(planted) {
			t.Errorf("%s: content %q, %d bytes", class, got.Data, got.Size)
		}
		if text := string(must(json.Marshal(must(s.Files(ctx, &api.FilesRequest{Class: class}))))); strings.Contains(text, planted) {
			t.Errorf("a list shows what is in a %s", class)
		}
	}
	file := s.Replica.Snapshot().FileByName(api.ClassSecret, "key")
	svc := &api.Service{ID: "s", Spec: spec("blog_web")}
	svc.Spec.Task.Files = []api.FileRef{{Class: api.ClassSecret, Name: "key", ID: file.ID, Target: "/key"}}
	must(s.Replica.Commit(ctx, []api.Change{{Service: svc}}))
	_, err := s.RemoveFile(ctx, &api.FileRequest{Class: api.ClassSecret, File: "key"})
	if api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "in use by blog_web") {
		t.Errorf("removed while it is used: %v", err)
	}
	must(s.RemoveFile(ctx, &api.FileRequest{Class: api.ClassConfig, File: "key"}))
	if _, err := s.RemoveFile(ctx, &api.FileRequest{Class: api.ClassConfig, File: "key"}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
	if strings.Contains(s.log.String(), planted) {
		t.Error("the log has the secret")
	}
}

// A node gets the files of the tasks that it runs, while they run, and sees
// nothing of any other's.
func TestOnlyTheNodeOfATaskGetsItsFiles(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	mine, other := s.member(t, api.RoleWorker), s.member(t, api.RoleManager)
	file := &api.File{ID: "f1", Class: api.ClassSecret, Name: "key", Data: []byte(planted)}
	task := &api.Task{ID: "t1", ServiceID: "s", ServiceName: "blog_web", Slot: 1, NodeID: mine.node.ID, Desired: api.DesiredRun,
		Status: api.TaskStatus{State: api.TaskAssigned}, Spec: api.TaskSpec{Files: []api.FileRef{{ID: "f1"}}}}
	must(s.Replica.Commit(ctx, []api.Change{{File: file}, {Task: task}}))

	ask := func(node *joiner, id api.TaskID) (*api.TaskFiles, error) {
		return rpc.Call[api.TaskFilesRequest, api.TaskFiles](ctx, node.client, api.ProcTaskFiles, &api.TaskFilesRequest{Task: id})
	}
	if got, err := ask(mine, "t1"); err != nil || len(got.Files) != 1 || string(got.Files[0].Data) != planted {
		t.Errorf("its own node: %v, %v", got, err)
	}
	for name, get := range map[string]func() error{
		"another node": func() error { _, err := ask(other, "t1"); return err },
		"who is no node": func() error {
			_, err := s.TaskFiles(ctx, &api.TaskFilesRequest{Task: "t1"})
			return err
		},
		"a task that ended": func() error {
			ended := *s.Replica.Snapshot().Tasks["t1"]
			ended.Status = api.TaskStatus{State: api.TaskComplete}
			must(s.Replica.Commit(ctx, []api.Change{{Task: &ended}}))
			_, err := ask(mine, "t1")
			return err
		},
	} {
		if err := get(); api.CodeOf(err) != api.CodeDenied || strings.Contains(fmt.Sprint(err), planted) {
			t.Errorf("%s: %v", name, err)
		}
		running := *s.Replica.Snapshot().Tasks["t1"]
		running.Status = api.TaskStatus{State: api.TaskRunning}
		must(s.Replica.Commit(ctx, []api.Change{{Task: &running}}))
	}
	if _, err := ask(mine, "t2"); api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("a task that the manager does not know (yet): %v", err)
	}
	view := string(must(json.Marshal(fullView(mine.node.ID, s.Replica.Snapshot()))))
	if strings.Contains(view, planted) || strings.Contains(view, "cGxhbnRlZC05NGNk") {
		t.Error("a node's view has a secret")
	}
}

// An update by hand: what comes takes the place of what has its target.
func TestUpdateOfFiles(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	for _, name := range []string{"old", "new"} {
		must(s.CreateFile(ctx, &api.CreateFileRequest{Spec: api.FileSpec{Class: api.ClassSecret, Name: name, Data: []byte(name)}}))
	}
	must(s.Replica.Commit(ctx, []api.Change{{Service: &api.Service{ID: "s", Spec: spec("blog_web")}}}))
	ref := func(name string) []api.FileRef {
		return []api.FileRef{{Class: api.ClassSecret, Name: name, Target: "/run/secrets/password", Mode: 0o444}}
	}
	has := func() string {
		snap, names := s.Replica.Snapshot(), ""
		for _, f := range snap.Services["s"].Spec.Task.Files {
			names += string(snap.Files[f.ID].Data) + " "
		}
		return names
	}
	for _, step := range []struct {
		req  api.UpdateRequest
		want string
		code api.Code
	}{
		{api.UpdateRequest{AddFiles: ref("old")}, "old ", ""},
		{api.UpdateRequest{AddFiles: ref("new")}, "new ", ""},
		{api.UpdateRequest{AddFiles: ref("nowhere")}, "new ", api.CodeNotFound},
		{api.UpdateRequest{RemoveFiles: ref("old")}, "new ", api.CodeInvalid},
		{api.UpdateRequest{RemoveFiles: ref("new")}, "", ""},
	} {
		step.req.Service = "blog_web"
		_, err := s.Update(ctx, &step.req)
		if err != nil != (step.code != "") || err != nil && api.CodeOf(err) != step.code || has() != step.want {
			t.Errorf("%+v: %v; it has %q, want %q", step.req, err, has(), step.want)
		}
	}
	// Back to a spec whose secret a user has removed meanwhile.
	must(s.Update(ctx, &api.UpdateRequest{Service: "blog_web", AddFiles: ref("old")}))
	settled := *s.Replica.Snapshot().Services["s"]
	settled.Update = nil // so that this is what an update can be taken back to
	must(s.Replica.Commit(ctx, []api.Change{{Service: &settled}}))
	must(s.Update(ctx, &api.UpdateRequest{Service: "blog_web", AddFiles: ref("new")}))
	must(s.RemoveFile(ctx, &api.FileRequest{Class: api.ClassSecret, File: "old"}))
	if _, err := s.Steer(ctx, &api.SteerRequest{Service: "blog_web", Action: api.SteerRollback}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("back to a secret that was removed: %v", err)
	}
}
