package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// nodesWith are other nodes with an image, of which some fail.
type nodesWith struct {
	nodes []api.Node
	fails map[string]error
}

func (n nodesWith) Sources(context.Context, api.TaskID) ([]api.Node, error) { return n.nodes, nil }

func (n nodesWith) Images(from *api.Node) api.ImageContent { return imageOn{n.fails[from.Hostname]} }

type imageOn struct{ err error }

func (i imageOn) Manifest(context.Context, string) (*api.ImageManifest, error) {
	return &api.ImageManifest{}, i.err
}

func (i imageOn) Layer(context.Context, string, int, int64) (io.ReadCloser, error) {
	return nil, errors.New("not read here")
}

func TestImageIsCopiedFromAnotherNode(t *testing.T) {
	broken := errors.New("the connection broke")
	for _, tt := range []struct {
		name   string
		pin    api.ImagePin
		ensure error
		from   nodesWith
		copies []string
		err    string
	}{
		{"it is here", api.ImagePin{ID: "sha256:1"}, nil, nodesWith{}, nil, ""},
		{"the second node that has it gives it", api.ImagePin{ID: "sha256:1"}, fmt.Errorf("image i: %w", api.ErrImageNotHere),
			nodesWith{[]api.Node{{Hostname: "n2"}, {Hostname: "n3"}}, map[string]error{"n2": broken}},
			[]string{"copy i (sha256:1): the connection broke", "copy i (sha256:1): <nil>"}, ""},
		{"none that has it is up", api.ImagePin{ID: "sha256:1"}, fmt.Errorf("image i: %w", api.ErrImageNotHere), nodesWith{},
			nil, "copy image i from another node: no node that is up has it (sha256:1)"},
		{"the registry fails, and so do the nodes", api.ImagePin{ID: "sha256:1", Digest: "sha256:2"}, errors.New("pull image i: no"),
			nodesWith{[]api.Node{{Hostname: "n2"}}, map[string]error{"n2": broken}},
			[]string{"copy i (sha256:1): the connection broke"}, "pull image i: no; and copy image i from another node: n2: the connection broke"},
		{"nobody knows which image it is", api.ImagePin{}, errors.New("pull image i: no"), nodesWith{}, nil, "pull image i: no"},
		{"the runtime is away", api.ImagePin{ID: "sha256:1"}, api.ErrRuntimeUnavailable, nodesWith{}, nil, api.ErrRuntimeUnavailable.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, c := newMachine(), newCluster()
			m.imageErr = tt.ensure
			a := New(Config{Node: "n1", Runtime: m, Links: m, Dataplane: m, Tunnels: wires{m}, Names: m, Gossip: c, Managers: c, Fence: newLease(), Copies: tt.from, Now: time.Now})
			task := assigned("a", "n1")
			task.Spec.Pin = tt.pin
			err := newWorker(a, "a").ensureImage(t.Context(), task)
			if got := fmt.Sprint(err); err != nil && got != tt.err || err == nil && tt.err != "" {
				t.Errorf("got %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.copies, m.history()); diff != "" {
				t.Errorf("copies (-want +got):\n%s", diff)
			}
		})
	}
}

// How far a copy is, is seldom told: each telling is an entry in the log.
func TestCopyProgress(t *testing.T) {
	m, c := newMachine(), newCluster()
	now := time.Unix(0, 0)
	a := New(Config{Node: "n1", Runtime: m, Managers: c, Gossip: c, Fence: newLease(), Now: func() time.Time { return now }})
	w := newWorker(a, "a")
	tell := w.copyProgress(&api.Node{Hostname: "n2"})
	var told []string
	for i := range int64(100) {
		tell(i<<20, 100<<20)
		if s := w.status.Message; len(told) == 0 || told[len(told)-1] != s {
			told = append(told, s)
		}
		now = now.Add(progressEvery / 40)
	}
	want := []string{"0 of 100 MB", "40 of 100 MB", "80 of 100 MB"}
	for i := range told {
		told[i] = strings.TrimPrefix(told[i], "copies its image from n2: ")
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGrants(t *testing.T) {
	now := time.Unix(0, 0)
	g := &grants{now: func() time.Time { return now }, until: make(map[grant]time.Time)}
	g.add(grant{"n2", "sha256:1"})
	open := func(context.Context) (ImageStore, error) { return nil, nil }
	stranger := t.Context() // a caller without a name
	if _, err := g.open(stranger, open, "sha256:1"); api.CodeOf(err) != api.CodeDenied {
		t.Errorf("somebody without a grant: %v", err)
	}
	g.add(grant{"", "sha256:1"})
	if _, err := g.open(stranger, open, "sha256:1"); err != nil {
		t.Errorf("with a grant: %v", err)
	}
	if _, err := g.open(stranger, open, "sha256:2"); api.CodeOf(err) != api.CodeDenied {
		t.Errorf("another image: %v", err)
	}
	now = now.Add(grantLife + 1)
	if _, err := g.open(stranger, open, "sha256:1"); api.CodeOf(err) != api.CodeDenied {
		t.Errorf("a grant of long ago: %v", err)
	}
	g.add(grant{"n3", "sha256:1"})
	if len(g.until) != 1 {
		t.Errorf("old grants are kept: %v", g.until)
	}
}
