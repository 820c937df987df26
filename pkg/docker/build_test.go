package docker

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// tree writes files; a name that ends in / is a directory, a content that
// begins with -> a link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		target, link := strings.CutPrefix(content, "->")
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case link:
			err = os.Symlink(target, path)
		default:
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBuildContext(t *testing.T) {
	dir := tree(t, map[string]string{
		".dockerignore": "**/*.log\nnode_modules\nsecret/**\n!secret/public\nDockerfile\n",
		"Dockerfile":    "FROM scratch", "main.go": "package main", "link": "->main.go", "a.log": "x", "empty/": "",
		"node_modules/left/pad.js": "x", "secret/key": "x", "secret/public": "x", "sub/b.log": "x",
	})
	outside := tree(t, map[string]string{"Dockerfile.web": "FROM scratch AS web"})
	for _, tt := range []struct {
		name       string
		build      api.ImageBuild
		dockerfile string
		text       string
	}{
		{"its own", api.ImageBuild{}, "Dockerfile", "FROM scratch"},
		{"in the compose file", api.ImageBuild{Inline: "FROM scratch AS inline"}, outsideDockerfile, "FROM scratch AS inline"},
		{"elsewhere", api.ImageBuild{Dockerfile: filepath.Join(outside, "Dockerfile.web")}, outsideDockerfile, "FROM scratch AS web"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.build.Context = dir
			c, err := openContext(&tt.build)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := c.pack(&b); err != nil {
				t.Fatal(err)
			}
			var names []string
			for r := tar.NewReader(&b); ; {
				h, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, h.Name)
				if text, _ := io.ReadAll(r); h.Name == tt.dockerfile && string(text) != tt.text {
					t.Errorf("the Dockerfile is %q", text)
				}
			}
			want := []string{".dockerignore", "empty/", "link", "main.go", "secret/public", "sub/", tt.dockerfile}
			slices.Sort(want)
			slices.Sort(names)
			names = slices.DeleteFunc(names, func(n string) bool { return n == "sub/" || n == "secret/" }) // directories of nothing
			want = slices.DeleteFunc(want, func(n string) bool { return n == "sub/" })
			if diff := cmp.Diff(want, names); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBuild(t *testing.T) {
	e := newEngine(t)
	name := strings.Replace(testImage, "docker-", "build-", 1)
	t.Cleanup(func() { removeImage(e, name) })
	dir := tree(t, map[string]string{
		"Dockerfile": "FROM scratch\nARG VERSION=none\nLABEL version=$VERSION\nCOPY data /data\n", "data": "one",
	})
	b := &api.ImageBuild{Name: name, Context: dir, Labels: map[string]string{"of": "the build"}, Args: map[string]*string{"VERSION": new("7")}}
	var said bytes.Buffer
	first, err := e.Build(t.Context(), b, &said)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "Step 4/") {
		t.Errorf("it said %q", said.String())
	}
	image, err := e.cli.ImageInspect(t.Context(), name)
	if err != nil || image.ID != first {
		t.Fatalf("%s is %s, built was %s, %v", name, image.ID, first, err)
	}
	if diff := cmp.Diff(map[string]string{"version": "7", "of": "the build"}, image.Config.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if again, err := e.Build(t.Context(), b, io.Discard); again != first || err != nil {
		t.Errorf("built again it is %s, %v, before %s", again, err, first)
	}
	if err := os.WriteFile(filepath.Join(dir, "data"), []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed, err := e.Build(t.Context(), b, io.Discard)
	if changed == first || err != nil {
		t.Errorf("changed source gives %s, %v", changed, err)
	}
	t.Cleanup(func() { removeImage(e, first) })
}

func TestBuildFails(t *testing.T) {
	e := newEngine(t)
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY nothing /\n"})
	for _, tt := range []struct {
		build api.ImageBuild
		want  string
	}{
		{api.ImageBuild{Context: dir}, "build image orch-test/fails:1: COPY failed: "},
		{api.ImageBuild{Context: filepath.Join(dir, "none")}, "build image orch-test/fails:1: its context: "},
		{api.ImageBuild{Context: dir, Dockerfile: "Containerfile"}, "build image orch-test/fails:1: its Dockerfile: "},
		{api.ImageBuild{Context: "https://example.org/x.git", Inline: "FROM scratch"}, "build image orch-test/fails:1: a Dockerfile in the compose file"},
	} {
		tt.build.Name = "orch-test/fails:1"
		if _, err := e.Build(t.Context(), &tt.build, io.Discard); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %v, want %s...", err, tt.want)
		}
	}
}

func TestCredentials(t *testing.T) {
	dir := tree(t, map[string]string{"config.json": `{"auths": {
		"registry.example.com": {"auth": "dXNlcjpwYXNzOndvcmQ="}, "https://index.docker.io/v1/": {"auth": "aHViOmh1YnB3"}}}`})
	t.Setenv("DOCKER_CONFIG", dir)
	for image, want := range map[string]*api.RegistryAuth{
		"registry.example.com/team/web:2": {Username: "user", Password: "pass:word"},
		"redis:7":                         {Username: "hub", Password: "hubpw"},
		"other.example.com/web":           nil,
	} {
		got, err := Credentials(image)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", image, err, diff)
		}
	}
}
