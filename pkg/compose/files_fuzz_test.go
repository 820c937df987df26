package compose_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/orch-dev/orch/pkg/compose"
)

// FuzzNamedFiles looks for what may be in the files that a compose file names which
// makes Load panic, or fail without saying of which file, or become part of a secret
// as something else.
func FuzzNamedFiles(f *testing.F) {
	const stack = `
services:
  web:
    image: i
    env_file: [vars]
    label_file: labels
    secrets: [word]
secrets:
  word: {file: word}
include: [{path: more.yaml, env_file: vars}]
`
	f.Add([]byte("A=1\nexport B='two'\nC=\"${A}\\n\"\n# no\nD"), []byte("a=b\n"), []byte("s3cret"), []byte("services: {db: {image: \"${A:-x}\"}}"))
	f.Add([]byte("A: 1\nA=${B:?must}"), []byte("=\n"), []byte{0, 0xff}, []byte("include: [more.yaml]"))
	f.Add([]byte("\xef\xbb\xbfA=\"open\nB=$\n"), []byte("x"), []byte("\n"), []byte("services: {web: {image: j}}"))
	f.Add([]byte("A==\r\n\tB =${A}${"), []byte("a.b='c"), []byte("x"), []byte("services: {db: {extends: {file: more.yaml, service: db}}}"))
	f.Fuzz(func(t *testing.T, vars, labels, word, more []byte) {
		if otherFiles.Match(more) {
			t.Skip()
		}
		dir := t.TempDir()
		for name, content := range map[string][]byte{"vars": vars, "labels": labels, "word": word, "more.yaml": more} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		project, err := compose.Load(context.Background(), "blog",
			[]compose.Source{{Name: "compose.yaml", Content: []byte(stack)}}, compose.Options{WorkingDir: dir})
		if err != nil {
			wantProblems(t, err)
			return
		}
		for _, file := range project.Files {
			if file.Name == "blog_word" && string(file.Data) != string(word) {
				t.Errorf("%q became %q", word, file.Data)
			}
		}
	})
}
