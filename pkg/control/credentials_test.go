package control

import (
	"fmt"
	"io"
	"reflect"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// credentialsIn finds what a value holds of credentials, wherever that is in it.
func credentialsIn(v reflect.Value, path string) (found []string) {
	if auth, ok := v.Interface().(api.RegistryAuth); ok && auth != (api.RegistryAuth{}) {
		return []string{path}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			found = credentialsIn(v.Elem(), path)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				found = append(found, credentialsIn(v.Field(i), path+"."+field.Name)...)
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			found = append(found, credentialsIn(v.Index(i), fmt.Sprintf("%s[%d]", path, i))...)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			found = append(found, credentialsIn(v.MapIndex(key), fmt.Sprintf("%s[%v]", path, key))...)
		}
	}
	return found
}

// Users see no credentials, wherever the state has them, and of the nodes only that
// of a task, which needs them.
func TestCredentialsStaySecret(t *testing.T) {
	s := newSite(t)
	mine, other := s.member(t, api.RoleWorker), s.member(t, api.RoleWorker)
	auth := &api.RegistryAuth{Username: "u", Password: "planted"}
	old, next := spec("blog_web", 8080), spec("blog_web", 8080)
	old.Task.RegistryAuth, next.Task.RegistryAuth = auth, auth
	must(s.Replica.Commit(deadline(t), []api.Change{
		{Service: &api.Service{ID: "web", Stack: "blog", Spec: next, Previous: &old}},
		{Task: &api.Task{
			ID: "t1", ServiceID: "web", ServiceName: "blog_web", Stack: "blog", Slot: 1, NodeID: mine.node.ID, Spec: old.Task,
			Status: api.TaskStatus{State: api.TaskRunning}, Fetch: &api.Fetch{Round: 1, Image: "i:2", RegistryAuth: auth},
			History: []api.Event{{At: time.Unix(0, 0), What: "made"}},
		}},
	}))

	viewer := s.client(must(s.addUser(t, api.AddUserRequest{Name: "vera", Role: api.UserViewer}))).Client
	wantNone := func(what string, v any, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if found := credentialsIn(reflect.ValueOf(v), what); len(found) > 0 {
			t.Errorf("credentials in %q", found)
		}
	}
	tasks, err := rpc.Call[api.TasksRequest, api.TaskList](deadline(t), viewer, api.ProcTasks, &api.TasksRequest{})
	wantNone("tasks", tasks, err)
	if len(tasks.Tasks) != 1 || tasks.Tasks[0].Fetch == nil || tasks.Tasks[0].Fetch.Image != "i:2" {
		t.Errorf("listed: %+v", tasks.Tasks)
	}
	services, err := rpc.Call[api.ServicesRequest, api.ServiceList](deadline(t), viewer, api.ProcServices, &api.ServicesRequest{})
	wantNone("services", services, err)
	for _, name := range []string{"blog_web", "blog_web.1", mine.node.Hostname} {
		why, err := rpc.Call[api.WhyRequest, api.Why](deadline(t), viewer, api.ProcWhy, &api.WhyRequest{Name: name})
		wantNone("why "+name, why, err)
	}
	wantNone("view of another node", fullView(other.node.ID, s.Replica.Snapshot()), nil)

	kept := s.Replica.Task("t1")
	if got := credentialsIn(reflect.ValueOf(kept), "task"); len(got) != 2 {
		t.Errorf("the state has credentials in %q only", got)
	}
	err = rpc.Stream(deadline(t), mine.client, api.ProcSession, &api.SessionRequest{Node: mine.node.ID}, func(u *api.Update) error {
		if got := credentialsIn(reflect.ValueOf(u), "view"); len(got) != 2 {
			t.Errorf("the task's node is told credentials in %q only", got)
		}
		return io.EOF
	})
	if err != io.EOF {
		t.Error(err)
	}
}
