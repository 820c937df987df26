package dataplane

import (
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
)

// Packets in, bytes out: what the program on the uplink makes of a client's packet
// for a task elsewhere. That it asks for a direct return is one bit of it, and is
// what a session at the other end then has of it.
func TestTunnelledBytes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	addr := netip.MustParseAddr
	a, b, client, task := addr("192.0.2.1"), addr("192.0.2.2"), addr("203.0.113.9"), addr("10.128.0.5")
	outer := func(dsr byte) []byte {
		return slices.Concat(
			make([]byte, 12), []byte{8, 0}, // to nobody: the test has no route
			[]byte{0x45, 0, 0, 90, 0, 0, 0x40, 0, 64, 17}, []byte{0xb6, 0x8f}, a.AsSlice(), b.AsSlice(),
			[]byte{0, 0, 0x12, 0xb5, 0, 70, 0, 0}, // from a port of the flow's, to 4789
			[]byte{8, 0, 0, 0, 1, 0x00, 0x50, 0},  // kind CLIENT, port 80
			[]byte{0x02, 0x6f}, task.AsSlice(), []byte{dsr, 0x6f}, a.AsSlice(), []byte{8, 0})
	}
	inner := clientSYN(client, a)
	for _, tt := range []struct {
		dsr  bool
		mark byte
	}{{false, 0x02}, {true, 0x06}} {
		at := func(self netip.Addr) *Dataplane {
			return loadedFor(t, api.NetworkPlan{
				Underlay: self, Pool: netip.MustParsePrefix(api.DefaultPool),
				Members:   []api.Member{{Node: "a", Addr: a}, {Node: "b", Addr: b}},
				Endpoints: []api.PlanEndpoint{{Addr: task, Node: b, IfIndex: 1, Networks: []uint32{1}}},
				Frontends: []api.Frontend{{
					FrontendKey: api.FrontendKey{Addr: netip.IPv4Unspecified(), Port: 8080, Protocol: api.TCP}, DSR: tt.dsr,
					Backends: []api.Backend{{Addr: task, Port: 80, Weight: 1}},
				}},
			})
		}
		_, got, err := at(a).programs.UplinkTc.Test(slices.Concat(make([]byte, 12), []byte{8, 0}, inner))
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Concat(outer(tt.mark), inner)
		if len(got) >= 36 {
			copy(want[34:36], got[34:36]) // the port that the flow's hash gives
		}
		if !slices.Equal(got, want) {
			t.Errorf("dsr %v:\n%x, want\n%x", tt.dsr, got, want)
		}
		there := at(b)
		if _, _, err := there.programs.UplinkTc.Test(got); err != nil {
			t.Fatal(err)
		}
		key := bpf.OrchSessionKey{Client: be32(client), Backend: be32(task), ClientPort: be16(51000), BackendPort: be16(80), Proto: 6}
		var s bpf.OrchSession
		if err := there.maps["brief_sessions"].Lookup(key, &s); err != nil {
			t.Fatalf("dsr %v: no session: %v", tt.dsr, err)
		}
		if asked := s.Flags&bpf.OrchSeenSEEN_DSR != 0; asked != tt.dsr || s.Via != be32(a) {
			t.Errorf("dsr %v: the session has %+v", tt.dsr, s)
		}
	}
}

// What comes from outside under an address of loopback is the kernel's, which takes none:
// a port that is published there alone answers this node alone.
func TestLoopbackFromOutside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	addr := netip.MustParseAddr
	a, b, client, task, loopback := addr("192.0.2.1"), addr("192.0.2.2"), addr("203.0.113.9"), addr("10.128.0.5"), addr("127.0.0.1")
	for _, published := range []netip.Addr{loopback, netip.IPv4Unspecified()} {
		d := loadedFor(t, api.NetworkPlan{
			Underlay: a, Pool: netip.MustParsePrefix(api.DefaultPool),
			Members:   []api.Member{{Node: "a", Addr: a}, {Node: "b", Addr: b}},
			Endpoints: []api.PlanEndpoint{{Addr: task, Node: b, IfIndex: 1, Networks: []uint32{1}}},
			Frontends: []api.Frontend{{
				FrontendKey: api.FrontendKey{Addr: published, Port: 8080, Protocol: api.TCP},
				Backends:    []api.Backend{{Addr: task, Port: 80, Weight: 1}},
			}},
		})
		for _, ends := range [][2]netip.Addr{{client, loopback}, {loopback, a}} {
			frame := slices.Concat(make([]byte, 12), []byte{8, 0}, clientSYN(ends[0], ends[1]))
			const passed, passedXDP = 0xffffffff, 2 // TC_ACT_UNSPEC, XDP_PASS
			if got, _, err := d.programs.UplinkTc.Test(frame); err != nil || got != passed {
				t.Errorf("published on %s, from %s to %s, at TC: %#x, %v", published, ends[0], ends[1], got, err)
			}
			if got, _, err := d.programs.UplinkXdp.Test(frame); err != nil || got != passedXDP {
				t.Errorf("published on %s, from %s to %s, at XDP: %#x, %v", published, ends[0], ends[1], got, err)
			}
		}
	}
}

// A task speaks IP and resolves its gateway. What its node would unpack after the
// programs have seen it, as a second VLAN tag, goes nowhere.
func TestOddFramesFromATask(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	addr := netip.MustParseAddr
	a, task := addr("192.0.2.1"), addr("10.128.0.5")
	d := loadedFor(t, api.NetworkPlan{
		Underlay: a, Pool: netip.MustParsePrefix(api.DefaultPool),
		Members:   []api.Member{{Node: "a", Addr: a}},
		Endpoints: []api.PlanEndpoint{{Addr: task, Node: a, IfIndex: 1, Networks: []uint32{1}}},
	})
	inner := clientSYN(addr("10.128.0.77"), addr("198.51.100.1"))
	const passed, dropped = 0xffffffff, 2 // TC_ACT_UNSPEC, TC_ACT_SHOT
	for _, tt := range []struct {
		name    string
		payload []byte // from the link layer's type on
		want    uint32
	}{
		{"ARP", append([]byte{8, 6}, make([]byte, 28)...), passed},
		{"a VLAN tag behind another", slices.Concat([]byte{0x81, 0, 0, 0, 8, 0}, inner), dropped},
		{"a provider's VLAN tag", slices.Concat([]byte{0x88, 0xa8, 0, 0, 8, 0}, inner), dropped},
		{"IPv6 where there is none", append([]byte{0x86, 0xdd, 0x60}, make([]byte, 60)...), dropped},
		{"an experiment", append([]byte{0x88, 0xb5}, make([]byte, 40)...), dropped},
		{"an address of loopback", append([]byte{8, 0}, clientSYN(task, addr("127.0.0.1"))...), dropped},
	} {
		if got, _, err := d.programs.FromTask.Test(append(make([]byte, 12), tt.payload...)); err != nil || got != tt.want {
			t.Errorf("%s: %#x, want %#x: %v", tt.name, got, tt.want, err)
		}
	}
}

// clientSYN is a TCP packet from port 51000 to 8080, without checksums.
func clientSYN(from, to netip.Addr) []byte {
	ip := slices.Concat([]byte{0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0}, from.AsSlice(), to.AsSlice())
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, 51000)
	binary.BigEndian.PutUint16(tcp[2:], 8080)
	tcp[12], tcp[13] = 5<<4, 2
	return append(ip, tcp...)
}

// loadedFor has the programs and their maps with a plan in them, attached to
// nothing. The uplink is the loopback device, on which test packets come in.
func loadedFor(t *testing.T, plan api.NetworkPlan) *Dataplane {
	t.Helper()
	cfg := Config{MaxFlows: 64, MaxSessions: 64, MaxEndpoints: 64, MaxMembers: 64, MaxFrontends: 64, MaxBackends: 64}.withDefaults()
	spec, err := prepareSpec(cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	maps, _, err := openMaps(t.TempDir(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeMaps(maps) })
	d := &Dataplane{cfg: cfg, uplink: 1, spec: spec, maps: maps}
	if d.programs, err = loadPrograms(spec, maps); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.programs.Close() })
	nothing, err := d.read()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.add(nothing, wanted(plan, nothing, 1500)); err != nil {
		t.Fatal(err)
	}
	return d
}
