package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/cmd/orch/daemon"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// userFile writes what `orch user add` would.
func userFile(t testing.TB, name string) string {
	t.Helper()
	cluster := &api.Cluster{ID: api.NewID(rand.Reader)}
	authority, err := pki.NewAuthority(rand.Reader, cluster.ID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	stored, _ := authority.Store()
	r := remote{UserAccess: api.UserAccess{Cluster: cluster.ID, User: api.User{Name: name, Role: api.UserViewer}, Managers: []string{"127.0.0.1:1"}}}
	if r.Key, err = pki.NewKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	request, _ := pki.Request(r.Key)
	id := pki.Identity{Cluster: cluster.ID, Role: api.RoleUser, Node: api.NodeID(api.NewID(rand.Reader))}
	cert, err := authority.Issue(rand.Reader, request, id, pki.DefaultLife, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r.Certificate = api.Certificate{Node: cert, Roots: [][]byte{stored.Certificate}}
	data, _ := json.Marshal(r)
	path := filepath.Join(t.TempDir(), name+".orch")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// orch runs a command and returns what it printed.
func orch(args ...string) (string, error) {
	var out bytes.Buffer
	root := newRootCommand()
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

func TestContexts(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv(hostVariable, "")
	t.Setenv(contextVariable, "")
	file := userFile(t, "vera")
	damaged := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(damaged, []byte(`{"key":"AAAA"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		args string
		says string // in what it prints, or in its error with "error: "
	}{
		{"context show", "default"},
		{"context ls -q", "default\n"},
		{"context create work", "error: say which file"},
		{"context create default --from " + file, "error: is the daemon on this machine"},
		{"context create ../work --from " + file, "error: context name"},
		{"context create work --from /not/there", "error: no such file"},
		{"context create work --from " + damaged, "error: not a file that `orch user add` has written"},
		{"context create work --from " + file + " --manager localhost:1", "orch context use work"},
		{"context create work --from " + file, "error: already"},
		{"context ls", "vera"},
		{"context use play", "error: no context \"play\""},
		{"context use work", ""},
		{"context show", "work"},
		{"node ls", "error: localhost:1"},
		{"--context default node ls", "error: no orch daemon answers on /run/orch/orch.sock"},
		{"--host unix:///not/there node ls", "error: no orch daemon answers on /not/there"},
		{"--host tcp://10.0.0.1 node ls", "error: see `orch context`"},
		{"--host unix:///x --context work node ls", "error: none of the others can be"},
		{"context rm work", "work"},
		{"context show", "default"},
		{"context rm work", "error: no context"},
	}
	for _, step := range steps {
		if step.args == "--context default node ls" {
			if _, err := os.Stat(daemon.DefaultRunDir + "/" + daemon.SocketName); err == nil {
				continue // a daemon runs on this machine
			}
		}
		out, err := orch(strings.Fields(step.args)...)
		want, fails := strings.CutPrefix(step.says, "error: ")
		if fails && (err == nil || !strings.Contains(err.Error(), want)) || !fails && (err != nil || !strings.Contains(out, want)) {
			t.Errorf("orch %s: %q, %v; want %q", step.args, out, err, step.says)
		}
	}
	if _, err := orch("context", "create", "work", "--from", file); err != nil {
		t.Fatal(err)
	}
	t.Setenv(contextVariable, "work")
	if out, err := orch("node", "ls"); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("%s does not count: %q, %v", contextVariable, out, err)
	}
	kept := filepath.Join(home, ".orch")
	for path, want := range map[string]os.FileMode{filepath.Join(kept, "contexts"): 0o700, filepath.Join(kept, "contexts", "work.json"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode().Perm(), err, want)
		}
	}
}
