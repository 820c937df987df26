package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/loadbalancer"
	"github.com/orch-dev/orch/pkg/api"
)

// current is the state in the maps: what was applied, or what they hold before
// the first plan.
func (d *Dataplane) current() (*state, error) {
	if d.have != nil {
		return d.have, nil
	}
	return d.read()
}

// Frontends lists what clients can connect to, with the backends as they are in
// the kernel. Tasks are left out: the data plane does not know of them.
func (d *Dataplane) Frontends() ([]api.NetFrontend, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.current()
	if err != nil {
		return nil, err
	}
	flows, err := d.flowRecords()
	if err != nil {
		return nil, err
	}
	open := make(map[uint32]int)
	now, err := nowTicks()
	if err != nil {
		return nil, err
	}
	for _, r := range flows {
		if s.backends[r.flow.Backend].Addr == r.flow.Addr && !d.flowEnded(r.key, r.flow, now) {
			open[r.flow.Backend]++
		}
	}
	list := make([]api.NetFrontend, 0, len(s.frontends))
	for key, fe := range s.frontends {
		f, err := d.frontend(s, key, fe, open)
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b api.NetFrontend) int { return compareKeys(a.Key(), b.Key()) })
	return list, nil
}

func (d *Dataplane) frontend(s *state, key bpf.OrchFrontend6Key, fe bpf.OrchFrontend, open map[uint32]int) (api.NetFrontend, error) {
	k := apiKey(key)
	sum, err := sumStats(d.maps["frontend_stats"], fe.Id)
	if err != nil {
		return api.NetFrontend{}, err
	}
	f := api.NetFrontend{
		Addr: k.Addr, Port: k.Port, Protocol: k.Protocol, Service: d.frontends[key].service,
		Packets: sum.Packets, Bytes: sum.Bytes, NewFlows: sum.Flows,
	}
	if !k.Virtual() {
		f.Return = returnOf(fe)
	}
	f.Backends, err = d.backendsOf(s, fe.Id, open)
	return f, err
}

func returnOf(fe bpf.OrchFrontend) api.Return {
	if fe.Flags&bpf.OrchFrontendFlagsFRONTEND_DSR != 0 {
		return api.ReturnDSR
	}
	return api.ReturnTunnel
}

// backendsOf lists a frontend's backends by address.
func (d *Dataplane) backendsOf(s *state, frontend uint32, open map[uint32]int) ([]api.NetBackend, error) {
	table, err := d.table(s, frontend)
	if err != nil {
		return nil, err
	}
	shares := loadbalancer.Shares(table)
	var list []api.NetBackend
	for id, b := range s.backends {
		if b.Frontend != frontend {
			continue
		}
		sum, err := sumStats(d.maps["backend_stats"], id)
		if err != nil {
			return nil, err
		}
		nb := api.NetBackend{
			Addr: addrOf(b.Addr), Port: be16(b.Port), Node: addrOf(s.endpoints[b.Addr].Node).String(),
			State: api.BackendActive, Flows: open[id], Share: shares[id],
			Packets: sum.Packets, Bytes: sum.Bytes, NewFlows: sum.Flows,
		}
		switch {
		case b.Flags&bpf.OrchBackendFlagsBACKEND_DRAINING != 0:
			nb.State = api.BackendDraining
		case !s.reachable(b.Addr):
			nb.State = api.BackendUnreachable
		}
		list = append(list, nb)
	}
	slices.SortFunc(list, func(a, b api.NetBackend) int { return a.Addr.Compare(b.Addr) })
	return list, nil
}

// table reads the places of a frontend's Maglev table.
func (d *Dataplane) table(s *state, frontend uint32) ([]uint32, error) {
	content := s.tables[frontend]
	if content == nil {
		var inner *ebpf.Map
		err := d.maps["tables"].Lookup(frontend, &inner)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read tables: %w", err)
		}
		defer inner.Close()
		parts := make([]part, inner.MaxEntries())
		for i := range parts {
			if err := inner.Lookup(uint32(i), &parts[i]); err != nil {
				return nil, fmt.Errorf("read table of frontend %d: %w", frontend, err)
			}
		}
		content = unpack(parts)
	}
	if len(content) == 0 {
		return nil, nil
	}
	return content[1:], nil
}

// meanings say for people what each drop reason stands for.
var meanings = map[string]string{
	"not-member":          "VXLAN from an address that is no node of the cluster",
	"malformed":           "VXLAN from a member that is not ours inside, or cut short",
	"not-encapsulated":    "from or to a task's address, from outside the cluster",
	"spoofed":             "a task sent from an address that is not its own, or from or to one of loopback",
	"isolated":            "from a task to one that shares no network with it",
	"internal":            "to the outside, from a task on internal networks only",
	"unknown-destination": "from a task to an address of the pool that nobody has",
	"no-backend":          "from a task to a virtual IP without a backend that serves",
	"not-here":            "tunnelled to a task that is not on this node (any more)",
	"unsupported":         "from a task: a protocol or IP option that cannot be used there",
	"fragment":            "a fragment of a datagram whose first one was not seen",
	"collision":           "a flow whose client port collides with others, and none was free",
	"no-route":            "this node has no route to the other node or client",
	"rewrite":             "the kernel could not resize the packet (out of memory?)",
	"moving":              "from a task, which may be a reply, while flows are carried over to maps of another version: it is sent again",
	"in-clear":            "VXLAN that was not encrypted, to a task on an encrypted network",
	"not-encrypted":       "to or from a task on an encrypted network, and this node or the other cannot encrypt (see orch doctor)",
	"forged":              "from a task to where nodes take the overlay's packets from each other",
	"too-big":             "too big for the tunnel, from a sender that cannot be told (see orch doctor)",
}

// Drops lists every drop reason, those that have come up most first.
func (d *Dataplane) Drops() ([]api.NetDrop, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	names, err := d.verdictNames()
	if err != nil {
		return nil, err
	}
	var list []api.NetDrop
	for verdict, name := range names {
		if !name.drop {
			continue
		}
		sum, err := d.sumVerdict(verdict)
		if err != nil {
			return nil, err
		}
		drop := api.NetDrop{Reason: name.name, Meaning: meanings[name.name], Packets: sum.Packets, Bytes: sum.Bytes}
		if sum.Packets > 0 {
			if drop.Last, err = d.lastExample(verdict); err != nil {
				return nil, err
			}
		}
		list = append(list, drop)
	}
	slices.SortFunc(list, func(a, b api.NetDrop) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Reason, b.Reason))
	})
	return list, nil
}

// lastExample is the latest of the packets that the CPUs kept.
func (d *Dataplane) lastExample(verdict uint32) (*api.NetExample, error) {
	var perCPU []bpf.OrchExample
	if err := d.maps["examples"].Lookup(verdict, &perCPU); err != nil {
		return nil, fmt.Errorf("read examples: %w", err)
	}
	last := slices.MaxFunc(perCPU, func(a, b bpf.OrchExample) int { return cmp.Compare(a.When, b.When) })
	if last.When == 0 {
		return nil, nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		return nil, fmt.Errorf("read clock: %w", err)
	}
	e := &api.NetExample{
		Ago:         time.Duration(now.Nano() - int64(last.When)),
		Source:      netip.AddrPortFrom(addrOf6(last.Saddr), be16(last.Sport)),
		Destination: netip.AddrPortFrom(addrOf6(last.Daddr), be16(last.Dport)),
		Protocol:    protocolName(last.Proto),
		Device:      fmt.Sprint("#", last.Ifindex),
		Length:      int(last.Len),
	}
	if dev, err := net.InterfaceByIndex(int(last.Ifindex)); err == nil {
		e.Device = dev.Name
	}
	return e, nil
}

func protocolName(n uint8) string {
	switch n {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		return "icmp"
	}
	return fmt.Sprint("protocol ", n)
}
