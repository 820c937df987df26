package compose_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/compose"
)

// Secrets and configs in every form that there is.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "site.conf"), []byte("listen 80\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := compose.Load(context.Background(), "blog", []compose.Source{{Name: "compose.yaml", Content: []byte(`
services:
  web:
    image: i
    secrets:
      - password
      - {source: password, target: db.pw, uid: "70", gid: "71", mode: 0440}
      - {source: theirs, target: /etc/tls/key.pem}
    configs:
      - site
      - {source: site, target: etc/other.conf, mode: 0755}
      - {source: motd, target: /etc/motd}
secrets:
  password: {environment: PASSWORD, labels: {tier: db}}
  theirs: {external: true, name: shared.key}
  idle: {file: ./nowhere}
configs:
  site: {file: ./site.conf}
  motd: {content: "hello $WHO, $$5"}
`)}}, compose.Options{WorkingDir: dir, Env: map[string]string{"PASSWORD": "geheim", "WHO": "you"}})
	if err != nil {
		t.Fatal(err)
	}
	config := func(name, target string, mode uint32) api.FileRef {
		return api.FileRef{Class: api.ClassConfig, Name: "blog_" + name, Target: target, Mode: mode}
	}
	wantRefs := []api.FileRef{
		config("site", "/site", 0o444),
		config("site", "/etc/other.conf", 0o755),
		config("motd", "/etc/motd", 0o444),
		{Class: api.ClassSecret, Name: "blog_password", Target: "/run/secrets/password", Mode: 0o444},
		{Class: api.ClassSecret, Name: "blog_password", Target: "/run/secrets/db.pw", UID: 70, GID: 71, Mode: 0o440},
		{Class: api.ClassSecret, Name: "shared.key", Target: "/etc/tls/key.pem", Mode: 0o444},
	}
	if diff := cmp.Diff(wantRefs, got.Services[0].Task.Files); diff != "" {
		t.Errorf("what the service uses (-want +got):\n%s", diff)
	}
	wantFiles := []api.FileSpec{
		{Class: api.ClassConfig, Name: "blog_motd", Data: []byte("hello you, $5")},
		{Class: api.ClassConfig, Name: "blog_site", Data: []byte("listen 80\n")},
		{Class: api.ClassSecret, Name: "blog_password", Data: []byte("geheim"), Labels: map[string]string{"tier": "db"}},
		{Class: api.ClassSecret, Name: "shared.key", External: true},
	}
	if diff := cmp.Diff(wantFiles, got.Files); diff != "" {
		t.Errorf("what the stack declares (-want +got):\n%s", diff)
	}
	if got := messages(got.Warnings); got != "compose.yaml:16:3: secrets.idle: no service uses it; it is not made" {
		t.Errorf("warnings: %s", got)
	}
	if text := fmt.Sprintf("%v %+v %s", got.Files, got.Files[2], got.Files[2]); strings.Contains(text, "geheim") {
		t.Errorf("a secret was printed: %s", text)
	}
}
