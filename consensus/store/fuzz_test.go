package store_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/tests/anything"
)

// FuzzApply looks for entries that one manager takes otherwise than another: a
// panic, an entry that is half applied, or a state that is another when it is
// read back.
func FuzzApply(f *testing.F) {
	f.Add([]byte{}, []byte{1})
	f.Add(bytes.Repeat([]byte{1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233}, 40), bytes.Repeat([]byte{3, 0, 1, 7}, 60))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		words := []string{"web", "db", "n1", "10.128.0.1", "10.128.0.2", "secret", "ready", "gone"}
		one, restored := store.New(), store.New()
		for i, data := range [][]byte{first, second} {
			changes, err := anything.Of[[]api.Change](data, words...)
			if err != nil {
				t.Fatal(err)
			}
			entry := encode(t, *changes...)
			before := save(t, one)
			answer := one.Apply(api.Index(i+1), entry)
			again := restored.Apply(api.Index(i+1), entry)
			if (answer == nil) != (again == nil) {
				t.Fatalf("one manager answers %v, one that has read its state back %v", answer, again)
			}
			if answer != nil && !bytes.Equal(withoutHeader(before), withoutHeader(save(t, one))) {
				t.Fatalf("refused (%v), and yet the state is another", answer)
			}
			restored = store.New()
			if err := restored.Restore(bytes.NewReader(save(t, one))); err != nil {
				t.Fatalf("the state cannot be read back: %v", err)
			}
			if a, b := save(t, one), save(t, restored); !bytes.Equal(a, b) {
				t.Fatalf("read back, the state is another:\n%s\n%s", a, b)
			}
			if one.Snapshot().Index != restored.Snapshot().Index {
				t.Fatal("read back, the state has another index")
			}
		}
	})
}

// withoutHeader is a saved state without its first line, which has the index of
// the last entry, applied or not.
func withoutHeader(saved []byte) []byte {
	_, rest, _ := bytes.Cut(saved, []byte("\n"))
	return rest
}

// FuzzRestore looks for files that make a manager panic that reads them, or that
// it takes for a state which it then writes as another.
func FuzzRestore(f *testing.F) {
	s := store.New()
	apply(f, s, 1, service(0, "a", "web", "img"), network(0, "n", "back", 1), task(0, "t", "10.128.0.1", api.EndpointReady), api.Change{Cluster: &api.Cluster{ID: "c"}})
	f.Add(save(f, s))
	f.Add([]byte(`{"format":"orch-store","version":1,"index":1,"changed":1}` + "\n" + `{"end":true}`))
	f.Fuzz(func(t *testing.T, file []byte) {
		s := store.New()
		if s.Restore(bytes.NewReader(file)) != nil {
			return
		}
		s.Snapshot()
		saved, again := save(t, s), store.New()
		if err := again.Restore(bytes.NewReader(saved)); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if !bytes.Equal(saved, save(t, again)) {
			t.Fatal("written again, the state is another")
		}
	})
}

// FuzzEntry looks for bytes that are no entry and that a manager takes for one.
func FuzzEntry(f *testing.F) {
	f.Add(encode(f, service(0, "a", "web", "img")))
	f.Add([]byte(`{"v":3,"changes":[]}`))
	f.Add([]byte(`{"v":1,"changes":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var entry struct {
			V       int          `json:"v"`
			Changes []api.Change `json:"changes"`
		}
		readable := len(data) == 0 || json.Unmarshal(data, &entry) == nil && (entry.V == 1 || entry.V == 2)
		defer func() {
			if refused := recover() != nil; refused == readable {
				t.Fatalf("%q: refused %v, readable %v", data, refused, readable)
			}
		}()
		store.New().Apply(1, data)
	})
}
