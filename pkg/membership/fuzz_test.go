package membership

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/hashicorp/memberlist"

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

// FuzzRole looks for what another node may say of itself that makes this one panic,
// or take it for a manager at an address that it would pass on as another.
func FuzzRole(f *testing.F) {
	f.Add("n1", []byte("192.0.2.1:2377"))
	f.Add("n1", []byte("[2001:db8::1%eth0]:2377"))
	f.Add("", []byte("192.0.2.1:99999"))
	f.Add("n1", []byte{0, 0xff})
	f.Fuzz(func(t *testing.T, name string, meta []byte) {
		m, err := New(Config{ID: "self", BindAddr: "192.0.2.9", Keys: [][]byte{bytes.Repeat([]byte{1}, 32)}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		node := &memberlist.Node{Name: name, Addr: net.IPv4(192, 0, 2, 1), Port: 1, Meta: meta}
		m.here(node)
		addrs := m.Managers()
		for _, text := range addrs {
			addr, err := netip.ParseAddrPort(text)
			if err != nil {
				t.Fatalf("%q of %q is passed on as %q: %v", meta, name, text, err)
			}
			m.SetManager(addr)
			if again := decodeRole(m.role.NodeMeta(memberlist.MetaMaxSize)); again != addr {
				t.Fatalf("%v is told as %v", addr, again)
			}
		}
		if m.gone(node); len(addrs) > 1 || len(m.Managers()) > 0 {
			t.Fatalf("%q of %q: managers %q, and %q when it is gone", meta, name, addrs, m.Managers())
		}
	})
}
