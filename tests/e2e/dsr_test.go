package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/doctor"
	"github.com/orch-dev/orch/pkg/lab"
)

// testDirectReturn deploys a service whose replies go straight to clients. Then the
// switch begins to guard sources: clients get no replies from the task's node but
// through it, the doctor says who loses what, and a deploy with the other return
// mends it.
func testDirectReturn(t *testing.T, c *cluster) {
	const stack, port = "direct", 8088
	c.deploy(t, stack, "v1")
	defer c.run(t, "n1", "stack", "rm", stack)
	task := c.mustServe(t, "direct_web")[0]
	others := c.names(task.NodeName)
	answers := func() {
		t.Helper()
		for _, node := range c.names() {
			id, err := c.outside().whoami(c.addr(node, port))
			if err != nil || !strings.HasPrefix(id.Client, lab.ClientAddr.String()) {
				t.Errorf("through %s: %+v, %v, want the client %s", node, id, err, lab.ClientAddr)
			}
		}
		if id, err := c.outside().whoamiUDP(t.Context(), c.addr(others[0], port)); err != nil || id.Replica != replica(task) {
			t.Errorf("over UDP through %s: %+v, %v", others[0], id, err)
		}
	}
	answers()
	for name, list := range explained[api.NetFrontends](t, c, "n1", "ls", "--all") {
		for _, f := range list.Frontends {
			if key := f.Key(); f.Service == "direct_web" && !key.Virtual() && f.Return != api.ReturnDSR {
				t.Errorf("%s lists %+v, want return dsr", name, f)
			}
		}
	}
	trace := explained[api.NetTrace](t, c, "n1", "trace", lab.ClientAddr.String()+":50000", fmt.Sprint(port))[others[0]]
	if !strings.Contains(trace.Return, "straight to the client") {
		t.Errorf("traced through %s: %+v", others[0], trace)
	}
	for _, f := range examine(t, c) {
		if f.Check == "direct return" && (f.Level != doctor.OK || !strings.Contains(f.Found, "arrives here; direct_web has it")) {
			t.Errorf("%+v", f)
		}
	}

	guard := func(ruleset string) {
		t.Helper()
		if out, err := exec.Command("ip", "netns", "exec", c.NamespaceName("sw"), "nft", ruleset).CombinedOutput(); err != nil {
			t.Fatalf("nft: %v: %s", err, out)
		}
	}
	guard(fmt.Sprintf("table netdev guard { chain port { type filter hook ingress device %s priority 0; ip saddr != %s drop; }; }",
		task.NodeName, c.find(task.NodeName).Addr))
	defer guard("delete table netdev guard")
	if _, err := c.outside().dialBriefly("tcp", c.addr(others[0], port)); err == nil {
		t.Errorf("the switch lets pass what %s sends from the address of %s: nothing is tried", task.NodeName, others[0])
	}
	told := map[string]bool{}
	for _, f := range examine(t, c) {
		if f.Level == doctor.Fail && f.Check == "direct return" && strings.Contains(f.Found, task.NodeName+" sends from the address of") {
			told[f.Node] = true
		}
	}
	if len(told) != len(others) || told[task.NodeName] {
		t.Errorf("that replies of %s are lost was found on %v, want %v", task.NodeName, told, others)
	}
	t.Setenv("RETURN", "tunnel")
	c.deploy(t, stack, "v1")
	if now := c.mustServe(t, "direct_web")[0]; now.ID != task.ID {
		t.Errorf("another return made a new task: %s after %s", now.ID, task.ID)
	}
	answers()
}
