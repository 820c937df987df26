package dataplane

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
)

// A session that is over by having been idle makes room for another flow that wants
// its key, also before it is swept: the task's answers go by the new one.
func TestIdleSessionMakesRoom(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	addr := netip.MustParseAddr
	a, client, task := addr("192.0.2.1"), addr("203.0.113.9"), addr("10.128.0.5")
	d := loadedFor(t, api.NetworkPlan{
		Underlay: a, Pool: netip.MustParsePrefix(api.DefaultPool),
		Members:   []api.Member{{Node: "a", Addr: a}},
		Endpoints: []api.PlanEndpoint{{Addr: task, Node: a, IfIndex: 1, Networks: []uint32{1}}},
		Frontends: []api.Frontend{{
			FrontendKey: api.FrontendKey{Addr: netip.IPv4Unspecified(), Port: 8080, Protocol: api.UDP},
			Backends:    []api.Backend{{Addr: task, Port: 80, Weight: 1}},
		}},
	})
	now, err := nowTicks()
	if err != nil {
		t.Fatal(err)
	}
	key := bpf.OrchSessionKey{Client: be32(client), Backend: be32(task), ClientPort: be16(51000), BackendPort: be16(80), Proto: 17}
	idle := bpf.OrchSession{Client: be32(client), ClientPort: be16(51000), Dest: be32(addr("192.0.2.7")), DestPort: be16(8080),
		Via: be32(a), Seen: now - 1 - ticksOf(d.cfg.UDPIdle)}
	if err := d.maps["sessions"].Put(key, idle); err != nil {
		t.Fatal(err)
	}
	datagram := slices.Concat([]byte{0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0}, client.AsSlice(), a.AsSlice(), make([]byte, 12))
	binary.BigEndian.PutUint16(datagram[20:], 51000)
	binary.BigEndian.PutUint16(datagram[22:], 8080)
	binary.BigEndian.PutUint16(datagram[24:], 12)
	if _, _, err := d.programs.UplinkTc.Test(slices.Concat(make([]byte, 12), []byte{8, 0}, datagram)); err != nil {
		t.Fatal(err)
	}
	var s bpf.OrchSession
	if err := d.maps["brief_sessions"].Lookup(key, &s); err != nil || s.Dest != be32(a) {
		t.Errorf("the new session: %+v, %v", s, err)
	}
	if err := d.maps["sessions"].Lookup(key, &s); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the old one is still in its way: %+v, %v", s, err)
	}
}
