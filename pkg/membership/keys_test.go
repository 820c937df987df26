package membership_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/membership"
)

// The key is replaced step by step, on one node after another, and nobody is missed
// at any time. Who has the old one alone is outside then.
func TestKeysAreReplaced(t *testing.T) {
	r := newRing(t)
	all, want := r.startAll(4)
	missed := all[0].Changed()
	next := bytes.Repeat([]byte{9}, 32)
	for _, step := range [][][]byte{{key, next}, {next, key}, {next}} {
		for _, m := range all {
			if err := m.SetKeys(step); err != nil {
				t.Fatal(err)
			}
			// It hears the others, and they it.
			for _, other := range all {
				waitHint(t, m, other)
				waitHint(t, other, m)
			}
		}
		select {
		case <-missed:
			t.Fatalf("somebody is missed: %v", all[0].Alive())
		case <-time.After(2 * membership.TimingFor(len(all)).Detection(len(all))):
		}
	}
	old := r.start("old", 0, key)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := old.Join(ctx, []string{all[0].addr}); err == nil {
		t.Error("a node with the old key could join")
	}
	for _, m := range all {
		waitAlive(t, m, want)
	}
	if err := all[0].SetKeys(nil); err == nil {
		t.Error("a ring without a key was taken")
	}
	if err := all[0].SetKeys([][]byte{next, key[:7]}); err == nil {
		t.Error("a key of 7 bytes was taken")
	}
}

var hinted int

// waitHint has one member tell another something, which is sent once, straight to it.
func waitHint(t *testing.T, from, to *member) {
	t.Helper()
	if from == to {
		return
	}
	hinted++
	task := api.TaskID(fmt.Sprintf("%0*d", api.IDLength, hinted))
	from.Broadcast(task)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		select {
		case got := <-to.Hints():
			if got == task {
				return
			}
		case <-ctx.Done():
			t.Fatalf("%s does not hear %s", to.id, from.id)
		}
	}
}
