// Package deps checks the dependency rule of docs/architecture.md: pkg/api
// imports only the standard library; planners are pure and import only api;
// adapters import api and the one outside library they own, never another
// adapter; loops join planners to adapters; only commands and tests wire.
package deps

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/orch-dev/orch/"

// rule says what a package may import beside the standard library.
type rule struct {
	// ours are packages of this module, relative to its root.
	ours []string
	// outside are import path prefixes of other modules.
	outside []string
	// pure packages ask no clock, no chance and no network; without files
	// they open none either.
	pure, files bool
}

var goOnly = []string{"golang.org/x/sys", "golang.org/x/sync"}

// rules has an entry for every package but those that wire.
var rules = map[string]rule{
	"pkg/api": {pure: true},

	// Planners.
	"loadbalancer":     {pure: true, ours: []string{"pkg/api"}},
	"pkg/ipam":         {pure: true, ours: []string{"pkg/api"}},
	"pkg/network":      {pure: true, ours: []string{"pkg/api", "loadbalancer"}},
	"pkg/orchestrator": {pure: true, ours: []string{"pkg/api"}},
	"pkg/pki":          {pure: true, ours: []string{"pkg/api"}},
	"pkg/scheduler":    {pure: true, ours: []string{"pkg/api"}},
	"pkg/seal":         {pure: true},
	"pkg/backup":       {pure: true, ours: []string{"pkg/api", "pkg/seal"}},
	"pkg/doctor":       {pure: true, ours: []string{"pkg/api"}},
	// The compose loader reports through logrus, which has to be quietened.
	"pkg/compose": {pure: true, files: true, ours: []string{"pkg/api"}, outside: []string{
		"github.com/compose-spec/compose-go/v2", "github.com/distribution/reference", "github.com/sirupsen/logrus", "go.yaml.in/yaml"}},
	// Under Raft: every node must compute the same.
	"consensus/store": {pure: true, ours: []string{"pkg/api"}, outside: []string{"github.com/hashicorp/go-memdb"}},

	// Adapters.
	"bpf":            {outside: []string{"github.com/cilium/ebpf"}},
	"consensus":      {ours: []string{"pkg/api", "pkg/quiet", "pkg/seal", "consensus/store"}, outside: []string{"github.com/hashicorp/raft", "github.com/hashicorp/raft-wal", "go.etcd.io/bbolt", "github.com/hashicorp/go-hclog"}},
	"pkg/dataplane":  {ours: []string{"pkg/api", "bpf", "loadbalancer"}, outside: []string{"github.com/cilium/ebpf", "github.com/vishvananda/netlink"}},
	"pkg/dns":        {ours: []string{"pkg/api"}, outside: []string{"github.com/miekg/dns"}},
	"pkg/docker":     {ours: []string{"pkg/api"}, outside: []string{"github.com/moby/moby", "github.com/containerd/errdefs", "github.com/distribution/reference", "github.com/moby/patternmatcher", "github.com/cpuguy83/dockercfg", "github.com/opencontainers/image-spec"}},
	"pkg/fence":      {ours: []string{"pkg/api"}},
	"pkg/membership": {ours: []string{"pkg/api", "pkg/quiet"}, outside: []string{"github.com/hashicorp/memberlist"}},
	"pkg/netdev":     {ours: []string{"pkg/api"}, outside: []string{"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/google/nftables"}},
	"pkg/wireguard":  {ours: []string{"pkg/api"}, outside: []string{"golang.zx2c4.com/wireguard/wgctrl", "github.com/vishvananda/netlink"}},
	"pkg/signer":     {ours: []string{"pkg/api"}},
	"pkg/sysctl":     {},
	"pkg/quiet":      {},
	"pkg/rpc":        {ours: []string{"pkg/api", "pkg/pki", "pkg/quiet"}, outside: []string{"connectrpc.com/connect"}},

	// Loops.
	"pkg/agent":   {ours: loop("pkg/rpc")},
	"pkg/control": {ours: loop("pkg/manager", "pkg/rpc", "pkg/seal", "pkg/backup", "consensus/store")},
	"pkg/manager": {ours: loop("consensus", "consensus/store")},
	"pkg/metrics": {ours: loop("pkg/dataplane", "consensus"), outside: []string{"github.com/prometheus/client_golang"}},

	// The command line talks to a daemon, and knows nothing of what runs in one.
	"cmd/orch": {
		ours:    []string{"cmd/orch/daemon", "pkg/api", "pkg/backup", "pkg/compose", "pkg/docker", "pkg/doctor", "pkg/lab", "pkg/pki", "pkg/rpc", "pkg/seal"},
		outside: []string{"github.com/spf13/cobra", "github.com/google/renameio", "golang.org/x/term"},
	},
}

// loop is what a loop may import: api, every planner, and some more.
func loop(more ...string) []string {
	return append([]string{"pkg/api", "loadbalancer", "pkg/ipam", "pkg/network", "pkg/orchestrator", "pkg/pki", "pkg/scheduler"}, more...)
}

// wires are the trees that may import anything.
var wires = []string{"cmd/orch/daemon", "examples", "pkg/lab", "tests"}

type goPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	GoFiles    []string
	Imports    []string
	Module     *struct{ Dir string }
}

func (p goPackage) name() string { return strings.TrimPrefix(p.ImportPath, module) }

func (p goPackage) wires() bool {
	return slices.ContainsFunc(wires, func(tree string) bool {
		return p.name() == tree || strings.HasPrefix(p.name(), tree+"/")
	})
}

// packages lists the packages of the module, without their tests.
func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Dir,Doc,GoFiles,Imports,Module", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			list = append(list, p)
		}
	}
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		if p.wires() {
			continue
		}
		r, known := rules[p.name()]
		if !known {
			t.Errorf("%s has no entry in tests/deps: say there what kind of package it is and what it may import", p.name())
			continue
		}
		for _, path := range p.Imports {
			if problem := r.check(path); problem != "" {
				t.Errorf("%s imports %s: %s", p.name(), strings.TrimPrefix(path, module), problem)
			}
		}
	}
}

// impure are the packages of the standard library that a pure package must do
// without.
var impure = []string{"crypto/rand", "math/rand", "math/rand/v2", "net", "net/http", "os/exec", "os/signal", "syscall", "log", "log/slog"}

// check returns what is wrong with an import, or "".
func (r rule) check(path string) string {
	if name, ours := strings.CutPrefix(path, module); ours {
		switch {
		case slices.Contains(r.ours, name):
			return ""
		case len(r.ours) == 0:
			return "it may import nothing of this module"
		default:
			return "of this module it may import only " + strings.Join(r.ours, ", ")
		}
	}
	if !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") { // the standard library
		if r.pure && (slices.Contains(impure, path) || path == "os" && !r.files) {
			return "it is pure, and has to be handed what it would get from there"
		}
		return ""
	}
	allowed := r.outside
	if !r.pure {
		allowed = append(slices.Clone(r.outside), goOnly...)
	}
	if slices.ContainsFunc(allowed, func(prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }) {
		return ""
	}
	if len(allowed) == 0 {
		return "it may import only the standard library and api"
	}
	return "that library belongs to another package; it may import only " + strings.Join(allowed, ", ")
}

// clock are the functions of package time that ask the clock or wait for it.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

func TestPurePackagesAskNoClock(t *testing.T) {
	for _, p := range packages(t) {
		if !rules[p.name()].pure {
			continue
		}
		for _, name := range p.GoFiles {
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(node ast.Node) bool {
				selector, ok := node.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := selector.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, selector.Sel.Name) {
					t.Errorf("%s: time.%s in a pure package: the time has to be handed in", files.Position(selector.Pos()), selector.Sel.Name)
				}
				return true
			})
		}
	}
}

func TestPackagesAreDocumented(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.name())
		}
	}
}

// The checks themselves, on imports that must not pass.
func TestRuleCheck(t *testing.T) {
	for _, c := range []struct {
		name, path string
		want       string
	}{
		{"pkg/api", "github.com/hashicorp/raft", "only the standard library"},
		{"pkg/api", module + "pkg/ipam", "nothing of this module"},
		{"pkg/ipam", "math/rand/v2", "pure"},
		{"pkg/ipam", "net/netip", ""},
		{"pkg/scheduler", module + "pkg/docker", "only pkg/api"},
		{"pkg/netdev", module + "pkg/dataplane", "only pkg/api"},
		{"pkg/netdev", "github.com/moby/moby/client", "belongs to another package"},
		{"pkg/netdev", "github.com/vishvananda/netlink/nl", ""},
		{"pkg/netdev", "golang.org/x/sys/unix", ""},
	} {
		got := rules[c.name].check(c.path)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s imports %s: %q, want %q", c.name, c.path, got, c.want)
		}
	}
	if got := fmt.Sprint(goPackage{ImportPath: module + "pkg/labour"}.wires()); got != "false" {
		t.Error("a name that begins like a wiring package counts as one")
	}
}
