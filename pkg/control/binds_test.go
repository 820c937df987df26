package control

import (
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// A service that mounts a path of its node is refused where no node has that, and
// only those nodes are asked that may run it.
func TestBinds(t *testing.T) {
	g := newGroup(t, 3)
	here := t.TempDir()
	for _, p := range g.managers {
		p.has.Store(here, true)
	}
	g.managers[0].has.Store("/on/the/first", true)
	first := g.managers[0].node.Hostname
	deploy := func(constraint api.Constraint, sources ...string) ([]string, error) {
		web := spec("blog_web")
		web.Placement.Constraints = []api.Constraint{constraint}
		for _, source := range sources {
			web.Task.Mounts = append(web.Task.Mounts, api.Mount{Type: api.MountBind, Source: source, Target: source})
		}
		res, err := rpc.Call[api.DeployRequest, api.DeployResponse](deadline(t), g.leader(t).client, api.ProcDeploy, &api.DeployRequest{
			Stack: "blog", Resolve: api.ResolveNever, Services: []api.ServiceSpec{web}, Networks: []api.NetworkSpec{{Name: "blog_default"}}})
		if err != nil {
			return nil, err
		}
		return res.Warnings, nil
	}
	anywhere := api.Constraint{Key: "node.hostname", Op: api.OpNotEqual, Value: "nobody"}
	elsewhere := api.Constraint{Key: "node.hostname", Op: api.OpNotEqual, Value: first}
	if warnings, err := deploy(anywhere, here, "/of/{{.Node.Hostname}}"); err != nil || len(warnings) > 0 {
		t.Errorf("what all have: %q, %v", warnings, err)
	}
	if warnings, err := deploy(anywhere, here, "/on/the/first"); err != nil || len(warnings) != 1 ||
		warnings[0] != "service blog_web mounts /on/the/first, which is not on m1, m2: its tasks cannot start there; make it, or add a constraint" {
		t.Errorf("what one has: %q, %v", warnings, err)
	}
	for _, c := range []struct {
		constraint api.Constraint
		path, want string
	}{
		{anywhere, "/nowhere", "service blog_web mounts /nowhere, which is on none of the nodes that may run it (m0, m1, m2)"},
		{elsewhere, "/on/the/first", "service blog_web mounts /on/the/first, which is on none of the nodes that may run it (m1, m2)"},
	} {
		if _, err := deploy(c.constraint, c.path); api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.path, err)
		}
	}
}
