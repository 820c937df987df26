package compose_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/compose"
)

func TestBuild(t *testing.T) {
	got, err := load(t, nil, `
services:
  plain: {build: .}
  named:
    image: shop/web:2
    build:
      context: ./web
      dockerfile: ../Dockerfile.web
      args: {VERSION: "2"}
      labels: {a: b}
      target: final
      cache_from: [shop/web:1]
      no_cache: true
      pull: true
      network: host
      extra_hosts: ["mirror:192.0.2.1"]
      shm_size: 64m
      platforms: [linux/arm64]
      tags: [shop/web:latest]
  remote: {build: "https://example.org/shop.git#main:web"}
  inline:
    build:
      context: .
      dockerfile_inline: FROM scratch
`)
	if err != nil {
		t.Fatal(err)
	}
	dir := "/srv/blog"
	want := []compose.Build{
		{Service: "blog_inline", ImageBuild: api.ImageBuild{Name: "blog-inline", Context: dir, Inline: "FROM scratch"}},
		{Service: "blog_named", ImageBuild: api.ImageBuild{
			Name: "shop/web:2", Tags: []string{"shop/web:latest"}, Context: filepath.Join(dir, "web"), Dockerfile: "../Dockerfile.web",
			Args: map[string]*string{"VERSION": new("2")}, Labels: map[string]string{"a": "b"},
			Target: "final", CacheFrom: []string{"shop/web:1"}, NoCache: true, Pull: true, Network: "host",
			ExtraHosts: []string{"mirror:192.0.2.1"}, ShmBytes: 64 << 20, Platform: "linux/arm64",
		}},
		{Service: "blog_plain", ImageBuild: api.ImageBuild{Name: "blog-plain", Context: dir, Dockerfile: "Dockerfile"}},
		{Service: "blog_remote", ImageBuild: api.ImageBuild{Name: "blog-remote", Context: "https://example.org/shop.git#main:web", Dockerfile: "Dockerfile"}},
	}
	if diff := cmp.Diff(want, got.Builds); diff != "" {
		t.Errorf("builds (-want +got):\n%s", diff)
	}
	var images []string
	for _, s := range got.Services {
		images = append(images, s.Task.Image)
	}
	if diff := cmp.Diff([]string{"blog-inline", "shop/web:2", "blog-plain", "blog-remote"}, images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}
