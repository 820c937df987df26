package wireguard

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/orch-dev/orch/pkg/api"
)

func key(n byte) wgtypes.Key { return wgtypes.Key{n} }

func at(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

func TestWantedPeers(t *testing.T) {
	keys := func(epoch uint64, n byte) []api.TunnelKey {
		k := key(n)
		return []api.TunnelKey{{Epoch: epoch, Public: k[:]}}
	}
	plan := api.NetworkPlan{Node: "a", Members: []api.Member{
		{Node: "a", Addr: netip.MustParseAddr("10.0.0.1"), Keys: keys(3, 1)},
		{Node: "b", Addr: netip.MustParseAddr("10.0.0.2"), Keys: append(keys(3, 2), keys(4, 20)...)},
		{Node: "c", Addr: netip.MustParseAddr("10.0.0.3"), Keys: keys(2, 3)},
		{Node: "d", Addr: netip.MustParseAddr("10.0.0.4"), Keys: []api.TunnelKey{{Epoch: 3, Public: []byte("short")}}},
	}}
	got := wantedPeers(plan, 3)
	if len(got) != 1 || got[key(2)] != at("10.0.0.2:7948") {
		t.Errorf("epoch 3: %v", got)
	}
	got = wantedPeers(plan, 4)
	if len(got) != 1 || got[key(20)] != at("10.0.0.2:7947") {
		t.Errorf("epoch 4: %v", got)
	}
}

func TestPeerChanges(t *testing.T) {
	want := map[wgtypes.Key]netip.AddrPort{key(1): at("10.0.0.1:7947"), key(2): at("10.0.0.2:7947")}
	first := peerChanges(nil, want)
	if len(first) != 2 {
		t.Fatalf("from nothing: %v", first)
	}
	var have []wgtypes.Peer
	for _, c := range first {
		have = append(have, wgtypes.Peer{PublicKey: c.PublicKey, Endpoint: c.Endpoint, AllowedIPs: c.AllowedIPs})
	}
	if again := peerChanges(have, want); again != nil {
		t.Errorf("a second time: %v", again)
	}
	// A node with another key takes its address from the peer with the old one.
	changed := map[wgtypes.Key]netip.AddrPort{key(1): at("10.0.0.1:7947"), key(3): at("10.0.0.2:7947")}
	got := peerChanges(have, changed)
	if len(got) != 2 || !got[0].Remove || got[0].PublicKey != key(2) || got[1].PublicKey != key(3) || got[1].AllowedIPs[0].String() != "10.0.0.2/32" {
		t.Errorf("another key: %v", got)
	}
	// One that was heard from elsewhere is put where the cluster has it.
	i := slices.IndexFunc(have, func(p wgtypes.Peer) bool { return p.PublicKey == key(1) })
	have[i].Endpoint.Port = 9
	if got := peerChanges(have, want); len(got) != 1 || got[0].PublicKey != key(1) || got[0].Endpoint.String() != "10.0.0.1:7947" {
		t.Errorf("heard from elsewhere: %v", got)
	}
}

// Whether the kernel has WireGuard or not, it says so, and nothing is left of the
// attempt.
func TestLacks(t *testing.T) {
	lacks := Lacks()
	if lacks != "" && !strings.Contains(lacks, "WireGuard") {
		t.Errorf("%q does not say what is lacking", lacks)
	}
	if link, err := lookUp("orch-wg-probe"); err != nil || link != nil {
		t.Errorf("left: %v, %v", link, err)
	}
}
