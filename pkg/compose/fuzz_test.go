package compose_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/orch-dev/orch/pkg/compose"
)

// otherFiles are keys that name files to read: what a fuzzer would have read is
// better left alone.
var otherFiles = regexp.MustCompile(`(?i)env_file|label_file`)

// FuzzLoad looks for files that make Load panic, return neither a project nor
// problems, or return problems without a message.
func FuzzLoad(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range seeds {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if otherFiles.Match(content) {
			t.Skip()
		}
		project, err := compose.Load(context.Background(), "blog",
			[]compose.Source{{Name: "compose.yaml", Content: content}}, compose.Options{WorkingDir: "/nowhere"})
		if err == nil {
			if project == nil || len(project.Services) == 0 && len(project.Warnings) == 0 {
				t.Fatal("no error and nothing to deploy")
			}
			return
		}
		wantProblems(t, err)
	})
}

// wantProblems expects an error to say of each problem what and where it is.
func wantProblems(t *testing.T, err error) {
	t.Helper()
	problems, ok := errors.AsType[*compose.Problems](err)
	if !ok || len(problems.List) == 0 {
		t.Fatalf("error %v (%T), want *Problems", err, err)
	}
	for _, p := range problems.List {
		if p.Message == "" || p.Line < 0 || p.File == "" {
			t.Errorf("problem says too little: %+v", p)
		}
	}
}
