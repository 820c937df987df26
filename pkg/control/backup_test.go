package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/backup"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/seal"
)

// Any manager gives a backup of all that there is; without a quorum too, if that is
// what is asked for.
func TestBackup(t *testing.T) {
	g := newGroup(t, 3)
	secret := &api.File{ID: "f1", Class: api.ClassSecret, Name: "key", Data: []byte(planted)}
	g.commit(t, func(*api.Snapshot) []api.Change { return []api.Change{{File: secret}} })
	if _, err := g.leader(t).Backup(t.Context(), &api.Empty{}); err == nil {
		t.Error("a backup under no key")
	}
	var key *api.BackupKey
	g.call(t, func(p *peer) (err error) {
		made, err := rpc.Call[api.BackupKeyRequest, api.BackupKey](deadline(t), p.client, api.ProcBackupKey, &api.BackupKeyRequest{})
		if err == nil && (key == nil || made.Made) {
			key = made
		}
		return err
	})
	for _, p := range g.managers {
		var file []byte
		until(t, "a manager gives a backup", func() (err error) {
			file, err = fetch(rpc.WithRead(deadline(t), api.ReadConsistent), p)
			return err
		})
		checkBackup(t, g, file, key.Key)
	}

	followers := g.followers(t)
	want := g.leader(t)
	until(t, "all know the same", func() error {
		if a, b := followers[0].Replica.Index(), want.Replica.Index(); a != b {
			return errBehind
		}
		return nil
	})
	want.stop()
	followers[1].stop()
	if _, err := fetch(rpc.WithRead(deadline(t), api.ReadConsistent), followers[0]); err == nil {
		t.Error("a consistent backup without a quorum")
	}
	file, err := fetch(rpc.WithRead(deadline(t), api.ReadStale), followers[0])
	if err != nil {
		t.Fatal(err)
	}
	checkBackup(t, g, file, key.Key)
}

var errBehind = api.Errorf(api.CodeUnavailable, "it is behind")

func fetch(ctx context.Context, from *peer) ([]byte, error) {
	content, err := rpc.Content(ctx, from.client, api.ProcBackup, &api.Empty{})
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return io.ReadAll(content)
}

// checkBackup checks that a backup has what the managers have.
func checkBackup(t *testing.T, g *group, file []byte, text string) {
	t.Helper()
	if strings.Contains(string(file), planted) || bytes.Contains(file, g.cluster.Authority.Key) {
		t.Error("a secret can be read in the backup")
	}
	key := must(seal.ParseUnlockKey(text))
	restored := store.New()
	head, err := backup.Read(bytes.NewReader(file), key, rand.Reader, restored.Restore)
	if err != nil {
		t.Fatal(err)
	}
	now, was := g.managers[0].Replica.Snapshot(), restored.Snapshot()
	if head.Cluster != g.cluster.ID || head.Index != was.Index {
		t.Errorf("it says of itself %+v", head)
	}
	if diff := cmp.Diff(now.Files, was.Files); diff != "" || string(was.Cluster.BackupKey) != string(key) {
		t.Errorf("the files in it (-now +backup):\n%s", diff)
	}
}

func TestBackupKey(t *testing.T) {
	s := newSite(t)
	first := must(s.BackupKey(t.Context(), &api.BackupKeyRequest{}))
	again := must(s.BackupKey(t.Context(), &api.BackupKeyRequest{}))
	other := must(s.BackupKey(t.Context(), &api.BackupKeyRequest{Rotate: true}))
	if !first.Made || again.Made || again.Key != first.Key || !other.Made || other.Key == first.Key {
		t.Errorf("keys %+v, %+v, and rotated %+v", first, again, other)
	}
	if view := fullView(s.Node, s.Replica.Snapshot()); view.Changes[0].Cluster.BackupKey != nil {
		t.Error("a node's view has the backup key")
	}
	if strings.Contains(s.log.String(), other.Key) {
		t.Error("the log has the backup key")
	}
}
