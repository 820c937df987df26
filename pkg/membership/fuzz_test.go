package membership

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// FuzzMessage looks for messages of other nodes that make this one panic, or that
// it passes on as something else.
func FuzzMessage(f *testing.F) {
	f.Add(encodeHint(api.TaskID(bytes.Repeat([]byte{'a'}, api.IDLength))))
	f.Add([]byte{hintKind})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, msg []byte) {
		var h hints
		h.init(slog.New(slog.DiscardHandler), func() int { return 3 })
		for range 2 { // each is passed on once
			h.NotifyMsg(bytes.Clone(msg))
		}
		h.MergeRemoteState(msg, true)
		passed, known := h.GetBroadcasts(0, 1<<16), len(h.out)
		if len(passed) != known || known > 1 {
			t.Fatalf("%d are passed on, %d read", len(passed), known)
		}
		if known == 1 && (!bytes.Equal(passed[0], msg) || string(<-h.out) != string(msg[1:])) {
			t.Fatalf("%q is passed on as %q", msg, passed[0])
		}
	})
}
