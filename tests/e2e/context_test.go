package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/lab"
)

// testContext uses the cluster from a machine that is no node, as a viewer and as
// an admin, through a rotation of the cluster's authority, until both are removed.
func testContext(t *testing.T, c *cluster) {
	home := t.TempDir()
	elsewhere := func(args ...string) (string, error) {
		out, err := c.Exec(t.Context(), lab.ClientName, append([]string{"env", "-u", "ORCH_HOST", "HOME=" + home, c.orch}, args...)...)
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := elsewhere(args...)
		if err != nil {
			t.Fatalf("elsewhere: orch %v: %v\n%s", args, err, out)
		}
		return out
	}
	denied := func(says string, args ...string) {
		t.Helper()
		if out, err := elsewhere(args...); err == nil || !strings.Contains(err.Error()+out, says) {
			t.Errorf("elsewhere: orch %v: %v, want it to say %q\n%s", args, err, says, out)
		}
	}
	for name, role := range map[string]string{"vera": "viewer", "ada": "admin"} {
		file := filepath.Join(t.TempDir(), name)
		c.run(t, "n2", "user", "add", name, "--role", role, "--output", file)
		must("context", "create", name, "--from", file)
	}
	if out := c.run(t, "n1", "user", "ls", "-q"); out != "ada\nvera\n" {
		t.Errorf("users %q", out)
	}
	must("context", "use", "vera")
	for _, args := range [][]string{{"node", "ls"}, {"stack", "ls"}, {"service", "ps", web}, {"info"}, {"net", "ls"}, {"ca"}} {
		if must(args...) == "" {
			t.Errorf("orch %v says nothing", args)
		}
	}
	must("service", "logs", web)
	for _, args := range [][]string{{"join-token", "worker"}, {"service", "scale", web + "=1"}, {"user", "ls"}, {"ca", "rotate"}, {"stack", "rm", blog}} {
		denied("vera is a viewer", args...)
		c.mustServe(t, web)
	}
	before := len(c.mustServe(t, web))
	must("--context", "ada", "service", "scale", "blog_web=4")
	must("--context", "ada", "service", "scale", "blog_web="+string(rune('0'+before)))

	if said := must("--context", "ada", "ca", "rotate"); !strings.Contains(said, "for users") {
		t.Errorf("a rotation says %q", said)
	}
	must("node", "ls") // each gets their new certificate
	must("--context", "ada", "node", "ls")
	await(t, patience, "the old authority is dropped", func() error {
		if status := c.authority(t); status.Next != nil {
			return fmt.Errorf("waits for %v, %v", status.Waiting, status.Users)
		}
		return nil
	})
	must("node", "ls")
	must("--context", "ada", "ca")

	c.run(t, "n1", "user", "rm", "vera", "ada")
	for _, name := range []string{"vera", "ada"} {
		denied("was removed", "--context", name, "node", "ls")
	}
}
