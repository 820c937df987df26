package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
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
	if !strings.Contains(warnings.String(), "the stack is named on the command line") {
		t.Errorf("warnings: %q", warnings.String())
	}
}

// Without -c the files of the directory are taken, the name of the file, and the
// variables of .env.
func TestStackFilesOfTheDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	config := func(args ...string) (api.DeployRequest, error) {
		cmd := newRootCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(io.Discard)
		cmd.SetArgs(append([]string{"stack", "config"}, args...))
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			return api.DeployRequest{}, err
		}
		var got api.DeployRequest
		return got, json.Unmarshal(out.Bytes(), &got)
	}
	if _, err := config(); err == nil || !strings.Contains(err.Error(), "there is no compose.yaml, ") {
		t.Errorf("in an empty directory: %v", err)
	}
	for name, content := range map[string]string{
		"docker-compose.yml":          "name: shop\nservices: {web: {image: \"web:${TAG}\"}, debug: {image: i, profiles: [tools]}}\n",
		"docker-compose.override.yml": "services: {web: {hostname: here}}\n",
		".env":                        "TAG=3\n",
		"other.env":                   "TAG=4\n",
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := config()
	if err != nil {
		t.Fatal(err)
	}
	if web := got.Services[0]; got.Stack != "shop" || len(got.Services) != 1 || web.Task.Image != "web:3" || web.Task.Hostname != "here" {
		t.Errorf("got %+v", got)
	}
	got, err = config("--env-file", "other.env", "--profile", "tools", "mine")
	if err != nil {
		t.Fatal(err)
	}
	if got.Stack != "mine" || len(got.Services) != 2 || got.Services[1].Task.Image != "web:4" {
		t.Errorf("got %+v", got)
	}
	t.Setenv("COMPOSE_FILE", "docker-compose.yml")
	if got, err = config(); err != nil || got.Services[0].Task.Hostname != "" {
		t.Errorf("with COMPOSE_FILE: %+v, %v", got, err)
	}
}
