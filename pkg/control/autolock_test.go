package control

import (
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/seal"
)

func TestAutolock(t *testing.T) {
	s := newSite(t)
	ctx := t.Context()
	set := func(on bool) string {
		t.Helper()
		return must(s.UpdateCluster(ctx, &api.UpdateClusterRequest{Autolock: &on})).UnlockKey
	}
	if _, err := s.UnlockKey(ctx, &api.UnlockKeyRequest{Rotate: true}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a key where none is needed: %v", err)
	}
	first := set(true)
	if again := set(true); again != "" {
		t.Error("switched on twice, it has another key")
	}
	if got := must(s.UnlockKey(ctx, &api.UnlockKeyRequest{})).Key; got != first {
		t.Errorf("the key is %q, and was given as %q", got, first)
	}
	second := must(s.UnlockKey(ctx, &api.UnlockKeyRequest{Rotate: true})).Key
	if kept := seal.UnlockKey(s.Replica.Snapshot().Cluster.UnlockKey); second == first || kept.Text() != second {
		t.Error("the key was not replaced")
	}
	view := fullView(s.Node, s.Replica.Snapshot())
	if view.Changes[0].Cluster.UnlockKey != nil {
		t.Error("a node's view has the unlock key")
	}
	for _, key := range []string{first, second} {
		if strings.Contains(s.log.String(), key) {
			t.Error("the log has an unlock key")
		}
	}
	set(false)
	if s.Replica.Snapshot().Cluster.UnlockKey != nil {
		t.Error("switched off, there is a key")
	}
}
