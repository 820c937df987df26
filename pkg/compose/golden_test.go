package compose_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/orch-dev/orch/pkg/compose"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMessages holds what users read about every file of testdata against the
// .txt beside it: the problems of those that are refused, the warnings of the
// others.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "testdata/"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			project, err := compose.Load(context.Background(), "blog",
				[]compose.Source{{Name: "compose.yaml", Content: content}}, compose.Options{WorkingDir: "/srv/blog"})
			var got string
			problems, isProblems := errors.AsType[*compose.Problems](err)
			switch refused := filepath.Base(filepath.Dir(file)) == "refused"; {
			case refused && isProblems:
				got = problems.Error() + "\n"
			case !refused && err == nil:
				got = messages(project.Warnings) + "\n"
			default:
				t.Fatalf("unexpected result: %v", err)
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("messages (-want +got), go test -update writes them anew:\n%s", diff)
			}
		})
	}
}
