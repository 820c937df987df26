package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// procedures reads the procedures from the source: the constants Proc*.
func procedures(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Proc") {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				if value, err := strconv.Unquote(literal.Value); err == nil {
					found[spec.Names[0].Name] = value
				}
			}
			return true
		})
	}
	if len(found) < 40 {
		t.Fatalf("only %d procedures were found", len(found))
	}
	return found
}

// besideCluster are procedures let to users that the daemon answers itself, after it
// has asked its manager about the user.
var besideCluster = map[string]bool{ProcInfo: true, ProcImageOffer: true, ProcImageUpload: true, ProcImageCommit: true}

// Every procedure has a rule, and what users are let to is answered by managers,
// which look them up in the state.
func TestEveryProcedureHasARule(t *testing.T) {
	named := map[string]bool{}
	for name, procedure := range procedures(t) {
		rule, ok := access[procedure]
		if !ok {
			t.Errorf("%s has no line in access.go: say who may call it", name)
		}
		named[procedure] = true
		forUsers := rule == AccessViewer || rule == AccessAdmin || rule == AccessKnown
		if forUsers && !strings.HasPrefix(procedure, "/orch.cluster/") && !besideCluster[procedure] {
			t.Errorf("%s is let to users, and not answered by managers alone", name)
		}
	}
	for procedure := range access {
		if !named[procedure] {
			t.Errorf("access.go has a line for %s, which is no procedure", procedure)
		}
	}
	if AccessTo("/orch.cluster/NotThere") != AccessManager {
		t.Error("what has no rule is not closed")
	}
}
