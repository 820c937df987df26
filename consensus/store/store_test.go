package store_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

func encode(t testing.TB, changes ...api.Change) []byte {
	t.Helper()
	data, err := store.Encode(changes)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// apply applies changes that must not be refused.
func apply(t testing.TB, s *store.Store, index api.Index, changes ...api.Change) {
	t.Helper()
	if answer := s.Apply(index, encode(t, changes...)); answer != nil {
		t.Fatalf("entry %d: %v", index, answer)
	}
}

func service(modified api.Index, id, name, image string) api.Change {
	return api.Change{Service: &api.Service{
		Meta: api.Meta{Modified: modified},
		ID:   api.ServiceID(id),
		Spec: api.ServiceSpec{Name: name, Task: api.TaskSpec{Image: image}},
	}}
}

func task(modified api.Index, id, addr string, state api.EndpointState) api.Change {
	t := &api.Task{Meta: api.Meta{Modified: modified}, ID: api.TaskID(id), ServiceID: "s", NodeID: "n", Endpoint: api.Endpoint{State: state}}
	if addr != "" {
		t.Endpoint.Addr = netip.MustParseAddr(addr)
	}
	return api.Change{Task: t}
}

func network(modified api.Index, id, name string, number uint32) api.Change {
	return api.Change{Network: &api.Network{Meta: api.Meta{Modified: modified}, ID: api.NetworkID(id), Name: name, Number: number}}
}

func deleted(c api.Change) api.Change {
	c.Delete = true
	return c
}

func TestStampsOfService(t *testing.T) {
	s := store.New()
	forged := service(0, "a", "web", "img:1")
	forged.Service.Meta.Created, forged.Service.SpecVersion = 99, 99
	apply(t, s, 3, forged)
	check := func(want api.Index, meta api.Meta) {
		t.Helper()
		got := s.Service("a")
		if diff := cmp.Diff(meta, got.Meta); diff != "" {
			t.Errorf("meta (-want +got):\n%s", diff)
		}
		if got.SpecVersion != want {
			t.Errorf("spec version is %d, want %d", got.SpecVersion, want)
		}
	}
	check(3, api.Meta{Created: 3, Modified: 3})

	scaled := service(3, "a", "web", "img:1")
	scaled.Service.Spec.Replicas = 5
	apply(t, s, 4, scaled)
	check(3, api.Meta{Created: 3, Modified: 4})

	apply(t, s, 7, service(4, "a", "web", "img:2"))
	check(7, api.Meta{Created: 3, Modified: 7})

	moved := service(7, "a", "web", "img:2")
	moved.Service.Spec.Networks = []string{"back"}
	apply(t, s, 8, moved)
	check(8, api.Meta{Created: 3, Modified: 8})
}

func TestStampsOfEndpoint(t *testing.T) {
	s := store.New()
	for i, step := range []struct {
		state api.EndpointState
		since api.Index
	}{
		{api.EndpointPending, 1}, {api.EndpointPending, 1}, {api.EndpointReady, 3}, {api.EndpointReady, 3}, {api.EndpointDraining, 5},
	} {
		apply(t, s, api.Index(i+1), task(api.Index(i), "t", "10.128.0.1", step.state))
		if got := s.Task("t").Endpoint.Since; got != step.since {
			t.Errorf("entry %d, %s: since %d, want %d", i+1, step.state, got, step.since)
		}
	}
}

func TestApplyIsAllOrNothing(t *testing.T) {
	prepared := func(t *testing.T) *store.Store {
		s := store.New()
		apply(t, s, 5,
			service(0, "a", "web", "img"), network(0, "n", "back", 1), task(0, "t", "10.128.0.1", api.EndpointReady),
			api.Change{Cluster: &api.Cluster{ID: "c"}})
		return s
	}
	good := service(0, "new", "new", "img")
	vip := service(0, "b", "db", "img")
	vip.Service.VIP = netip.MustParseAddr("10.128.0.1")
	for _, test := range []struct {
		name    string
		change  []api.Change
		refused string // "": applied
	}{
		{"old version", []api.Change{service(4, "a", "web", "img")}, "service a was changed meanwhile (version 5, expected 4)"},
		{"exists already", []api.Change{service(0, "a", "web", "img")}, "service a exists already"},
		{"gone", []api.Change{service(5, "x", "x", "img")}, "service x does not exist any more"},
		{"deleted another version", []api.Change{deleted(task(4, "t", "", ""))}, "task t was changed meanwhile (version 5, expected 4)"},
		{"second cluster", []api.Change{{Cluster: &api.Cluster{ID: "d"}}}, "cluster exists already"},
		{"service name", []api.Change{service(0, "b", "web", "img")}, "service name web is taken by service a"},
		{"network name", []api.Change{network(0, "m", "back", 2)}, "network name back is taken by network n"},
		{"network number", []api.Change{network(0, "m", "front", 1)}, "network number 1 is taken by network n"},
		{"task address", []api.Change{task(0, "u", "10.128.0.1", api.EndpointPending)}, "address 10.128.0.1 is taken by task t"},
		{"virtual IP", []api.Change{vip}, "address 10.128.0.1 is taken by task t"},
		{"twice in one entry", []api.Change{service(5, "a", "web", "img:2"), service(5, "a", "web", "img:3")}, "service a was changed meanwhile (version 6, expected 5)"},
		{"nothing", []api.Change{{}}, "a change must be about one object, not 0"},
		{"two objects", []api.Change{{Node: &api.Node{ID: "x"}, Task: &api.Task{ID: "y"}}}, "a change must be about one object, not 2"},
		{"no ID", []api.Change{{Node: &api.Node{}}}, "a change of a node names no ID"},

		{"address of one that is gone", []api.Change{task(0, "u", "10.128.0.1", api.EndpointReady), task(5, "t", "10.128.0.1", api.EndpointGone)}, ""},
		{"name of one that is deleted", []api.Change{service(0, "b", "web", "img"), deleted(service(5, "a", "", ""))}, ""},
		{"names swapped", []api.Change{network(0, "m", "back", 2), network(5, "n", "front", 1)}, ""},
		{"deleted what is not there", []api.Change{deleted(task(0, "u", "", ""))}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := prepared(t)
			before := s.Snapshot()
			answer := s.Apply(6, encode(t, append([]api.Change{good}, test.change...)...))
			if s.Index() != 6 {
				t.Errorf("index is %d, want 6", s.Index())
			}
			if test.refused == "" {
				if answer != nil {
					t.Errorf("refused: %v", answer)
				}
				if s.Service("new") == nil {
					t.Error("the rest of the entry was not applied")
				}
				return
			}
			err, _ := answer.(error)
			if err == nil || err.Error() != test.refused {
				t.Fatalf("answer %v, want %q", answer, test.refused)
			}
			if !strings.HasPrefix(test.refused, "a change") && !(errors.Is(err, store.ErrConflict) && api.CodeOf(err) == api.CodeConflict) {
				t.Errorf("%v is not a conflict", err)
			}
			if s.Snapshot() != before {
				t.Error("the state changed")
			}
		})
	}
}

func TestReads(t *testing.T) {
	s := store.New()
	apply(t, s, 1,
		service(0, "s", "web", "img"), service(0, "s2", "web2", "img"), network(0, "n", "back", 1),
		task(0, "t2", "", api.EndpointPending), task(0, "t1", "", api.EndpointPending),
		api.Change{Task: &api.Task{ID: "t3", ServiceID: "s", NodeID: "n2"}}, api.Change{Task: &api.Task{ID: "t4", ServiceID: "s2"}},
		api.Change{Node: &api.Node{ID: "n"}}, api.Change{Cluster: &api.Cluster{ID: "c"}})
	ids := func(tasks []*api.Task) string {
		var out []string
		for _, t := range tasks {
			out = append(out, string(t.ID))
		}
		return strings.Join(out, " ")
	}
	if got := ids(s.TasksByNode("n")); got != "t1 t2" {
		t.Errorf("tasks of node n: %s", got)
	}
	if s.ServiceByName("web").ID != "s" || s.NetworkByName("back").ID != "n" || s.Node("n") == nil || s.Cluster().ID != "c" ||
		s.Service("s2") == nil || s.Network("n") == nil {
		t.Error("an object is not found")
	}
	if s.ServiceByName("we") != nil || s.ServiceByName("back") != nil || s.Task("t") != nil || s.Node("") != nil {
		t.Error("something is found that is not there")
	}
	apply(t, s, 2, deleted(task(1, "t1", "", "")))
	if got := ids(s.TasksByNode("n")); got != "t2" {
		t.Errorf("tasks of node n after t1 was deleted: %s", got)
	}
}

func TestSnapshotIsImmutableAndShared(t *testing.T) {
	s := store.New()
	apply(t, s, 1, service(0, "a", "web", "img"))
	first := s.Snapshot()
	if s.Snapshot() != first {
		t.Error("two snapshots of one state")
	}
	apply(t, s, 2, network(0, "n", "back", 1))
	apply(t, s, 3, deleted(service(1, "a", "", "")))
	if answer := s.Apply(4, encode(t, service(1, "a", "web", "img"))); answer == nil {
		t.Fatal("entry 4 was not refused")
	}
	second := s.Snapshot()
	if first.Index != 1 || len(first.Services) != 1 || len(first.Networks) != 0 {
		t.Errorf("the first snapshot changed: %+v", first)
	}
	if second.Index != 3 || len(second.Services) != 0 || len(second.Networks) != 1 {
		t.Errorf("the second snapshot is %+v", second)
	}
}

func TestEmptyEntriesChangeNothing(t *testing.T) {
	s := store.New()
	for i, data := range [][]byte{nil, encode(t)} {
		changed := s.Changed()
		if answer := s.Apply(api.Index(i+1), data); answer != nil {
			t.Errorf("answer %v", answer)
		}
		select {
		case <-changed:
			t.Error("reported as a change")
		default:
		}
	}
	if s.Index() != 2 || s.Snapshot().Index != 0 {
		t.Errorf("index %d, snapshot's %d; want 2 and 0", s.Index(), s.Snapshot().Index)
	}
}

func TestUnreadableEntriesStopTheManager(t *testing.T) {
	for _, data := range []string{`{"v":3,"changes":[]}`, `{}`, `{"v":1,"changes":[`, "\x00"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", data)
				}
			}()
			store.New().Apply(1, []byte(data))
		}()
	}
}

func save(t testing.TB, s *store.Store) []byte {
	t.Helper()
	write, err := s.Save()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRestoreRefusesWhatSaveDidNotWrite(t *testing.T) {
	s := store.New()
	apply(t, s, 1, service(0, "a", "web", "img"))
	before := s.Snapshot()
	saved := string(save(t, s))
	lines := strings.SplitAfter(saved, "\n")
	for name, text := range map[string]string{
		"nothing":              "",
		"another format":       strings.Replace(saved, "orch-store", "tar", 1),
		"newer version":        strings.Replace(saved, `"version":1`, `"version":3`, 1),
		"cut off":              lines[0] + lines[1],
		"an object less":       lines[0] + lines[2],
		"an object of no kind": lines[0] + "{}\n" + lines[2],
	} {
		if err := s.Restore(strings.NewReader(text)); err == nil {
			t.Errorf("%s: no error", name)
		}
		if s.Snapshot() != before {
			t.Errorf("%s: the state changed", name)
		}
	}
}
