package store_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

func file(modified api.Index, id, stack string) api.Change {
	return api.Change{File: &api.File{
		ID: api.FileID(id), Meta: api.Meta{Modified: modified}, Class: api.ClassSecret, Name: "password", Stack: stack, Data: []byte(id),
	}}
}

// A user's secret has its name to itself; of a stack's there are versions.
func TestFiles(t *testing.T) {
	s := store.New()
	apply(t, s, 1, file(0, "a", ""), file(0, "v1", "blog"), file(0, "v2", "blog"))
	var conflict *store.ConflictError
	if err, _ := s.Apply(2, encode(t, file(0, "b", ""))).(error); !errors.As(err, &conflict) || conflict.Claim != "secret name password" {
		t.Errorf("a second one of the name: %v", err)
	}
	config := file(0, "c", "")
	config.File.Class = api.ClassConfig
	apply(t, s, 3, config, api.DeleteFile(&api.File{ID: "v1", Meta: api.Meta{Modified: 1}}))

	restored := store.New()
	if err := restored.Restore(bytes.NewReader(save(t, s))); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*store.Store{s, restored} {
		var got []string
		for _, f := range api.Sorted(s.Snapshot().Files) {
			got = append(got, string(f.Class)+" "+string(f.ID)+" "+string(f.Data))
		}
		if diff := cmp.Diff([]string{"secret a a", "config c c", "secret v2 v2"}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// Older managers read what newer ones write as long as there are no files in it.
func TestVersionsOfWhatIsWritten(t *testing.T) {
	for _, c := range []struct {
		change api.Change
		entry  string
		state  string
	}{
		{network(0, "a", "a", 1), `{"v":1,`, `"version":1`},
		{file(0, "a", ""), `{"v":2,`, `"version":2`},
	} {
		s := store.New()
		apply(t, s, 1, c.change)
		up, _, err := store.EncodeUpTo([]api.Change{c.change}, 1)
		if data := encode(t, c.change); err != nil || !strings.HasPrefix(string(data), c.entry) || !strings.HasPrefix(string(up), c.entry) {
			t.Errorf("entries %.20s, %.20s do not begin with %s (%v)", data, up, c.entry, err)
		}
		if state := string(save(t, s)); !strings.Contains(strings.SplitN(state, "\n", 2)[0], c.state) {
			t.Errorf("the state is not of %s: %.60s", c.state, state)
		}
	}
}
