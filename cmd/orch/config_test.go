package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// stack config says what would be deployed, without a daemon and without what is
// in secrets.
func TestStackConfig(t *testing.T) {
	t.Setenv("TAG", "7")
	t.Setenv("PASSWORD", "geheim")
	cmd := newRootCommand()
	var out, warnings bytes.Buffer
	cmd.SetIn(strings.NewReader(`
name: other
services:
  web: {image: "blog:${TAG}", secrets: [password], sysctls: {net.core.somaxconn: 1024}}
secrets:
  password: {environment: PASSWORD}
`))
	cmd.SetOut(&out)
	cmd.SetErr(&warnings)
	cmd.SetArgs([]string{"stack", "config", "-c", "-", "blog"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got api.DeployRequest
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if len(got.Services) != 1 {
		t.Fatalf("services: %s", out.String())
	}
	task := got.Services[0].Task
	want := []any{"blog", "blog_web", "blog:7", map[string]string{"net.core.somaxconn": "1024"}, "blog_password", 0}
	if diff := cmp.Diff(want, []any{got.Stack, got.Services[0].Name, task.Image, task.Container.Sysctls, got.Files[0].Name, len(got.Files[0].Data)}); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if !strings.Contains(warnings.String(), "a stack is named on the command line") {
		t.Errorf("warnings: %q", warnings.String())
	}
}
