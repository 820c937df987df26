package compose_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/compose"
)

var fileHead = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

// tree writes files, each below a line "-- NAME --", to a new directory and loads
// its compose.yaml from there.
func tree(t *testing.T, stack, archive string, env map[string]string) (*compose.Project, error) {
	t.Helper()
	dir := t.TempDir()
	names, contents := fileHead.FindAllStringSubmatch(archive, -1), fileHead.Split(archive, -1)[1:]
	for i, name := range names {
		file := filepath.Join(dir, name[1])
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(contents[i]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	content, err := os.ReadFile("compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if env, err = compose.ProjectEnvironment(env, dir, nil); err != nil {
		t.Fatal(err)
	}
	return compose.Load(t.Context(), stack, []compose.Source{{Name: "compose.yaml", Content: content}}, compose.Options{Env: env, WorkingDir: dir})
}

// by returns the services of a project by their short names.
func by(project *compose.Project) map[string]api.ServiceSpec {
	services := make(map[string]api.ServiceSpec)
	for _, s := range project.Services {
		services[s.Alias] = s
	}
	return services
}

func TestFilesNameOthers(t *testing.T) {
	project, err := tree(t, "", `
-- compose.yaml --
name: ${NAME}
include:
  - parts/db.yaml
  - path: [parts/cache/compose.yaml, more.yaml]
    project_directory: parts/cache
    env_file: cache.env
services:
  web:
    extends: {file: common/base.yaml, service: base}
    image: ${IMAGE}
    environment: [OWN=1]
-- .env --
IMAGE=web:1
NAME=shop
-- parts/db.yaml --
services:
  db:
    image: ${DB}
    volumes: [./data:/data]
-- parts/.env --
DB=db:2
IMAGE=not this
-- parts/cache/compose.yaml --
services:
  cache: {image: "${CACHE}"}
-- more.yaml --
services:
  cache: {hostname: "${IMAGE}"}
-- cache.env --
CACHE=cache:3
-- common/base.yaml --
services:
  base:
    extends: {file: deeper/root.yaml, service: root}
    environment: [BASE=1]
  other: {banana: 1}
-- common/deeper/root.yaml --
services:
  root:
    user: somebody
`, map[string]string{"IMAGE": "web:9"})
	if err != nil {
		t.Fatal(err)
	}
	if project.Stack != "shop" {
		t.Errorf("the stack is %q", project.Stack)
	}
	services := by(project)
	if got := slices.Sorted(maps.Keys(services)); !slices.Equal(got, []string{"cache", "db", "web"}) {
		t.Fatalf("services %v", got)
	}
	web := services["web"].Task
	if web.Image != "web:9" || web.User != "somebody" || !slices.Equal(web.Env, []string{"BASE=1", "OWN=1"}) {
		t.Errorf("web: %+v", web)
	}
	db := services["db"].Task
	if here, _ := os.Getwd(); db.Image != "db:2" || db.Mounts[0].Source != filepath.Join(here, "parts/data") {
		t.Errorf("db: %+v", db)
	}
	if cache := services["cache"].Task; cache.Image != "cache:3" || cache.Hostname != "web:9" {
		t.Errorf("cache: %+v", cache)
	}
}

// What is wrong in a file that another names is told with that file's name.
func TestProblemsOfOtherFiles(t *testing.T) {
	_, err := tree(t, "shop", `
-- compose.yaml --
include: [parts/db.yaml, gone.yaml, "https://example.com/compose.yaml", parts/loop.yaml]
services:
  web:
    extends: {file: base.yaml, service: base}
    image: i
  api:
    extends: {file: base.yaml, service: none}
    image: i
-- parts/db.yaml --
services:
  db:
    image: i
    banana: 1
-- parts/loop.yaml --
include: [loop2.yaml]
-- parts/loop2.yaml --
include: [loop.yaml]
-- base.yaml --
services:
  base:
    network_mode: host
`, nil)
	if err == nil {
		t.Fatal("it loads")
	}
	for _, want := range []string{
		`parts/db.yaml:4:5: services.db.banana: unknown key`,
		`compose.yaml:1:26: include[1]: cannot read gone.yaml: no such file or directory`,
		`compose.yaml:1:37: include[2]: https://example.com/compose.yaml is not on this machine; fetch it, and give its path`,
		`parts/loop2.yaml:1:11: include[0]: files name each other: parts/loop.yaml -> parts/loop2.yaml -> parts/loop.yaml`,
		`base.yaml:3:5: services.web.network_mode: `,
		`base.yaml:1:1: services.api.extends.file: there is no service "none" in it`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s", want)
		}
	}
	if t.Failed() {
		t.Log(err)
	}
}

func TestStackName(t *testing.T) {
	const named = "-- compose.yaml --\nname: fromfile\nservices: {web: {image: i}}\n"
	for _, test := range []struct {
		given, archive string
		env            map[string]string
		want, warning  string
	}{
		{"", named, nil, "fromfile", ""},
		{"other", named, nil, "other", `compose.yaml:1:7: name: the stack is named on the command line; this name is not used`},
		{"fromfile", named, nil, "fromfile", ""},
		{"", named, map[string]string{"COMPOSE_PROJECT_NAME": "fromenv"}, "fromenv", ""},
		{"", named + "-- .env --\nCOMPOSE_PROJECT_NAME=fromdotenv\n", nil, "fromdotenv", ""},
		{"", "-- compose.yaml --\nservices: {web: {image: i}}\n", nil, ".", ""}, // the directory's
	} {
		project, err := tree(t, test.given, test.archive, test.env)
		if err != nil {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		if test.want == "." {
			here, _ := os.Getwd()
			test.want = filepath.Base(here)
		}
		if got := messages(project.Warnings); project.Stack != test.want || got != test.warning {
			t.Errorf("%+v: the stack is %q, warnings %q", test, project.Stack, got)
		}
	}
}
