package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/wireguard"
)

// refusal is a command that has to fail with an error that says all of these.
type refusal struct {
	name string
	args []string
	says []string
}

func refused(t *testing.T, c *cluster, cases []refusal) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			start := time.Now()
			out, err := c.Orch(t.Context(), "n1", tc.args...)
			if err == nil {
				t.Fatalf("orch %s succeeded:\n%s", strings.Join(tc.args, " "), out)
			}
			t.Logf("%.1f s: %v", time.Since(start).Seconds(), err)
			says(t, err.Error(), tc.says)
		})
	}
}

func says(t *testing.T, text string, words []string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("the error does not say %q: %s", word, text)
		}
	}
}

func testBadInput(t *testing.T, c *cluster) {
	t.Setenv("PROBE_IMAGE", probeImage("v1"))
	file := func(name string) string { return filepath.Join("testdata", name) }
	deploy := func(name string) []string { return []string{"deploy", "-c", file(name), "bad"} }
	refused(t, c, []refusal{
		{"missing file", deploy("missing.yaml"), []string{"testdata/missing.yaml", "no such file"}},
		{"broken YAML", deploy("broken.yaml"), []string{"broken.yaml:5:10"}},
		{"unknown key", deploy("unknown-key.yaml"), []string{"unknown-key.yaml:5:7", "replicsa", "replicas"}},
		{"image that no node has", deploy("no-image.yaml"), []string{"127.0.0.1:9/nobody/has-this:1", "no node"}},
		{"no file named", []string{"deploy", "bad"}, []string{"-c"}},
		{"bad stack name", []string{"deploy", "-c", file("other.yaml"), "Bad Name"}, []string{"Bad Name"}},
		{"unknown stack, ps", []string{"stack", "ps", "nothing"}, []string{`"nothing"`, "orch stack ls"}},
		{"unknown stack, rm", []string{"stack", "rm", "nothing"}, []string{`"nothing"`, "orch stack ls"}},
		{"unknown service, scale", []string{"service", "scale", "nothing_web=3"}, []string{"nothing_web"}},
		{"unknown service, logs", []string{"service", "logs", "nothing_web"}, []string{"nothing_web"}},
		{"scale to nonsense", []string{"service", "scale", "web=many"}, []string{"web=many"}},
		{"second init", []string{"init"}, []string{"in a cluster already"}},
		{"second join", []string{"join", "orch1-worker-x@10.201.0.12"}, []string{"in a cluster already"}},
		{"unknown role", []string{"join-token", "king"}, []string{"king", "worker", "manager"}},
	})
	t.Run("join", func(t *testing.T) { testBadJoin(t, c) })
	if lacks := wireguard.Lacks(); lacks != "" {
		refused(t, c, []refusal{{"encryption that the kernel lacks", deploy("encrypted.yaml"), []string{"bad_back", "bad_web", "n1 (", "n3 (", lacks}}})
	}

	if stacks, err := list[api.StackEntry](t.Context(), c, "n1", "stack", "ls"); err != nil || len(stacks) > 0 {
		t.Errorf("stacks after all that: %v, %v", stacks, err)
	}
	if found, err := c.engine.containers(t.Context(), c.Options().Name, true); err != nil || len(found) > 0 {
		t.Errorf("containers after all that: %v, %v", found, err)
	}
}

// testBadJoin starts one more daemon beside the nodes, which is to stay out.
func testBadJoin(t *testing.T, c *cluster) {
	dir := t.TempDir()
	daemon := exec.Command(c.orch, "daemon", "--lab", c.Options().Name, "--hostname", "stranger",
		"--state-dir", filepath.Join(dir, "state"), "--run-dir", filepath.Join(dir, "run"),
		"--pin-dir", filepath.Join(filepath.Dir(c.Node(1).PinDir), "stranger"),
		"--advertise-addr", lab.ClientAddr.String(), "--metrics-addr", "")
	if err := c.Spawn(lab.ClientName, daemon); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	host := "unix://" + filepath.Join(dir, "run", "orch.sock")
	orch := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), c.orch, append([]string{"--host", host}, args...)...).CombinedOutput()
		return string(out), err
	}
	await(t, patience, "the daemon answers", func() error {
		_, err := orch("info")
		return err
	})
	good := strings.TrimSpace(c.run(t, "n1", "join-token", "worker", "-q"))
	rotated, err := pki.ParseToken(good)
	if err != nil {
		t.Fatal(err)
	}
	token, err := pki.ParseToken(c.run(t, "n1", "join-token", "worker", "-q", "--rotate"))
	if err != nil || token.Secret == rotated.Secret {
		t.Fatalf("rotated, the token is %v, %v", token, err)
	}
	wrong, foreign, nobody, other := token, token, token, token
	wrong.Secret, foreign.Digest = strings.Repeat("0", api.IDLength), pki.DigestOf([]byte("another"))
	nobody.Addr, other.Addr = "10.201.0.11:1", fmt.Sprint("10.201.0.11:", api.MetricsPort)
	for _, tc := range []refusal{
		{"no token", []string{"join", token.Addr}, []string{"orch join-token"}},
		{"part of a token", []string{"join", good[:50] + "@" + token.Addr}, []string{"damaged", "orch join-token"}},
		{"wrong token", []string{"join", wrong.String()}, []string{"token is wrong", "orch join-token"}},
		{"token of another cluster", []string{"join", foreign.String()}, []string{"another cluster", token.Addr}},
		{"rotated token", []string{"join", rotated.String()}, []string{"no longer", "orch join-token"}},
		{"nobody there", []string{"join", nobody.String()}, []string{nobody.Addr}},
		{"another program's port", []string{"join", other.String()}, []string{other.Addr, "does not speak TLS"}},
		{"someone else's address", []string{"join", token.String(), "--advertise-addr", "10.201.0.12"}, []string{"10.201.0.12"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := orch(tc.args...)
			if err == nil {
				t.Fatalf("orch %s succeeded:\n%s", strings.Join(tc.args, " "), out)
			}
			t.Log(out)
			says(t, out, tc.says)
		})
	}
	nodes, err := c.nodes(context.Background(), "n1")
	if err != nil || len(nodes) != 3 {
		t.Errorf("%d nodes, want 3: %v, %v", len(nodes), nodes, err)
	}
}

// testConflicts is about input that contradicts what is there.
func testConflicts(t *testing.T, c *cluster) {
	t.Setenv("PROBE_IMAGE", probeImage("v1"))
	refused(t, c, []refusal{
		{"port published already", []string{"deploy", "-c", "testdata/same-port.yaml", "bad"}, []string{"8080", "blog_web"}},
		{"too many replicas", []string{"service", "scale", "blog_web=1000000"}, []string{"blog_web", "1000000"}},
	})
	stacks, err := list[api.StackEntry](t.Context(), c, "n1", "stack", "ls")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stacks {
		if s.Name == "bad" {
			t.Errorf("the refused stack is there: %+v", s)
		}
	}
}
