package dataplane

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/loadbalancer"
	"github.com/orch-dev/orch/pkg/api"
)

// NotOurs is the verdict of a trace whose packet the data plane leaves alone.
const NotOurs = "not ours"

// Trace follows a client's packet through this node as the programs would, by
// the maps that they read, and says where it would go. A task as the client is
// traced from its interface. It sends and changes nothing.
func (d *Dataplane) Trace(req api.NetTraceRequest) (*api.NetTrace, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.current()
	if err != nil {
		return nil, err
	}
	if s.node.Underlay == 0 {
		return &api.NetTrace{Verdict: NotOurs, Path: "the node has no plan yet: every packet is the kernel's"}, nil
	}
	if !req.Addr.IsValid() {
		if req.Addr, err = d.ownAddr(s, req.Client.Addr()); err != nil {
			return nil, err
		}
	}
	if req.Client.Addr().Is4() != req.Addr.Is4() || protocolNumber(req.Protocol) == 0 {
		return nil, api.Errorf(api.CodeInvalid, "a trace takes two addresses of one family, and tcp or udp: %s to %s", req.Client.Addr(), req.Addr)
	}
	t := &tracer{d: d, s: s, req: req, out: &api.NetTrace{}}
	t.p = packet{
		saddr: s.short(req.Client.Addr()), sport: be16(req.Client.Port()),
		daddr: s.short(req.Addr), dport: be16(req.Port), proto: protocolNumber(req.Protocol),
	}
	if s.inPool(t.p.saddr) {
		err = t.fromTask()
	} else {
		err = t.fromOutside()
	}
	return t.out, err
}

// packet is what the programs look at, in the maps' order of bytes.
type packet struct {
	saddr, daddr uint32
	sport, dport uint16
	proto        uint8
}

// hash is flow_hash of packet.h.
func (p packet) hash() uint32 {
	h := uint64(p.saddr)<<32 | uint64(p.daddr)
	h *= 0xff51afd7ed558ccd
	h ^= h >> 32
	h += uint64(p.sport)<<32 | uint64(uint32(p.dport)<<8|uint32(p.proto))
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 29
	h *= 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}

// clientHash is client_hash of packet.h.
func (p packet) clientHash() uint32 {
	h := uint64(p.saddr^0xff51afd7) * 0xc4ceb9fe1a85ec53
	h ^= h >> 29
	h *= 0x9e3779b97f4a7c15
	return uint32(h >> 32)
}

func (s *state) inPool(addr uint32) bool { return addr&s.node.PoolMask == s.node.Pool }

func (s *state) shareNetwork(a, b uint64) bool {
	if a == b {
		return a != 0
	}
	_, ok := s.pairs[bpf.OrchNetPair{A: a, B: b}]
	return ok
}

// ownAddr is the address of the node that a client of that family may call.
func (d *Dataplane) ownAddr(s *state, client netip.Addr) (netip.Addr, error) {
	if client.Is4() {
		return addrOf(s.node.Underlay), nil
	}
	dev, err := net.InterfaceByIndex(d.uplink)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up uplink: %w", err)
	}
	addrs, err := dev.Addrs()
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is6() && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr(), nil
		}
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses of %s: %w", dev.Name, err)
	}
	return netip.Addr{}, api.Errorf(api.CodeInvalid, "%s has no IPv6 address: say which one the client calls", dev.Name)
}

type tracer struct {
	d   *Dataplane
	s   *state
	req api.NetTraceRequest
	p   packet
	out *api.NetTrace
}

// end notes what becomes of the packet.
func (t *tracer) end(verdict, format string, args ...any) error {
	t.out.Verdict, t.out.Path = verdict, fmt.Sprintf(format, args...)
	return nil
}

func (t *tracer) drop(reason string) error {
	return t.end("drop: "+reason, "%s", meanings[reason])
}

// fromOutside is from_uplink of uplink.h.
func (t *tracer) fromOutside() error {
	if t.s.inPool(t.p.daddr) {
		return t.drop("not-encapsulated")
	}
	key, fe, ok := t.published(false)
	if !ok {
		return t.end(NotOurs, "nothing is published there: the node itself answers or refuses")
	}
	return t.balance(key, fe, "passed-no-backend", "no backend serves: the node refuses the connection")
}

// fromTask is from_task_ip of task.h.
func (t *tracer) fromTask() error {
	task, ok := t.s.endpoints[t.p.saddr]
	switch {
	case !ok:
		return t.end(NotOurs, "no task has the address %s", t.req.Client.Addr())
	case task.Node != t.s.node.Underlay:
		return t.end(NotOurs, "the task %s sends from the node %s", t.req.Client.Addr(), addrOf(task.Node))
	case t.s.inPool(t.p.daddr):
		return t.toPool(task)
	}
	if _, member := t.s.members[t.p.daddr]; member && t.req.Protocol == api.UDP && t.req.Port == api.OverlayPort {
		return t.drop("forged")
	}
	key, fe, ok := t.published(true)
	if ok {
		return t.balance(key, fe, "passed-no-backend", "no backend serves: the kernel refuses the connection")
	}
	own := t.p.daddr == t.s.node.Underlay || t.req.Addr.IsLinkLocalUnicast() && t.isLocal()
	if !own && task.Flags&bpf.OrchEndpointFlagsENDPOINT_OUTSIDE == 0 {
		return t.drop("internal")
	}
	return t.end("passed-outside", "nothing of the cluster: the kernel routes and masquerades it")
}

// toPool is to_pool of task.h.
func (t *tracer) toPool(task bpf.OrchEndpoint) error {
	key := frontendKey(api.FrontendKey{Addr: addrOf(t.p.daddr)})
	if fe, ok := t.s.frontends[key]; ok {
		if !t.s.shareNetwork(task.Netset, fe.Netset) {
			t.name(key)
			return t.drop("isolated")
		}
		return t.balance(key, fe, "drop: no-backend", meanings["no-backend"])
	}
	other, ok := t.s.endpoints[t.p.daddr]
	switch {
	case !ok:
		return t.drop("unknown-destination")
	case !t.s.shareNetwork(task.Netset, other.Netset):
		return t.drop("isolated")
	case other.Node == t.s.node.Underlay:
		return t.end("delivered", "straight to the task, on this node")
	}
	if t.s.sealed(task, other) {
		return t.overlay("forwarded-overlay", other.Node, true)
	}
	return t.end("forwarded-overlay", "in VXLAN to the task on %s", addrOf(other.Node))
}

// sealed is is_sealed of maps.h.
func (s *state) sealed(a, b bpf.OrchEndpoint) bool {
	return s.node.Tunnel != 0 && (a.Flags|b.Flags)&bpf.OrchEndpointFlagsENDPOINT_ENCRYPTED != 0
}

// overlay ends a trace with a packet to a task on another node, for which it may
// have to be encrypted.
func (t *tracer) overlay(verdict string, node uint32, sealed bool) error {
	if sealed && (t.s.node.Tunnel == tunnelMissing || t.s.members[node]&bpf.OrchMemberFlagsMEMBER_ENCRYPTS == 0) {
		return t.drop("not-encrypted")
	}
	return t.end(verdict, "in VXLAN%s to %s, and there to the task", inWords(sealed), addrOf(node))
}

func inWords(sealed bool) string {
	if sealed {
		return ", encrypted,"
	}
	return ""
}

// published is find_published of frontend.h.
func (t *tracer) published(fromTask bool) (bpf.OrchFrontend6Key, bpf.OrchFrontend, bool) {
	at := api.FrontendKey{Addr: t.req.Addr, Port: t.req.Port, Protocol: t.req.Protocol}
	key := frontendKey(at)
	if fe, ok := t.s.frontends[key]; ok {
		return key, fe, true
	}
	at.Addr = netip.IPv4Unspecified()
	key = frontendKey(at)
	fe, ok := t.s.frontends[key]
	if !ok {
		return key, fe, false
	}
	_, member := t.s.members[t.p.daddr]
	everywhere := fe.Flags&bpf.OrchFrontendFlagsFRONTEND_HOST == 0
	return key, fe, fromTask && member && everywhere || t.isLocal()
}

func (t *tracer) isLocal() bool {
	if t.p.daddr == t.s.node.Underlay {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == t.req.Addr
	})
}

func (t *tracer) name(key bpf.OrchFrontend6Key) {
	k := apiKey(key)
	t.out.Frontend, t.out.Service = describeKey(k), t.d.frontends[key].service
	if !k.Virtual() && k.Addr.IsUnspecified() {
		t.out.Frontend = fmt.Sprintf("*:%d/%s", k.Port, k.Protocol)
	}
}

// balance is choose of frontend.h, and to_backend of deliver.h.
func (t *tracer) balance(key bpf.OrchFrontend6Key, fe bpf.OrchFrontend, none, noneMeans string) error {
	t.name(key)
	candidates, err := t.d.backendsOf(t.s, fe.Id, nil)
	if err != nil {
		return err
	}
	for _, c := range candidates {
		if c.Share > 0 {
			t.out.Candidates = append(t.out.Candidates, c)
		}
	}
	var b bpf.OrchBackend
	var ok bool
	if t.p.sport != 0 {
		if b, ok, err = t.remembered(fe); err != nil {
			return err
		}
		t.out.Remembered = ok
	}
	if !ok {
		table, err := t.d.table(t.s, fe.Id)
		if err != nil {
			return err
		}
		if len(table) == 0 {
			return t.end(none, "%s", noneMeans)
		}
		hash := t.p.hash()
		if fe.Flags&bpf.OrchFrontendFlagsFRONTEND_AFFINITY != 0 {
			hash = t.p.clientHash()
		} else if t.p.sport == 0 {
			return t.end("depends on the client's port", "one of the backends that take new flows; give CLIENT:PORT to know which")
		}
		b = t.s.backends[table[loadbalancer.Place(hash, uint32(len(table)))]]
	}
	port := b.Port
	if port == 0 {
		port = t.p.dport
	}
	t.out.Backend = addrPort(b.Addr, port)
	backend := t.s.endpoints[b.Addr]
	node := backend.Node
	if node == t.s.node.Underlay {
		t.out.Return = "from the task straight to the client"
		return t.end("delivered", "to the task, on this node")
	}
	sealed := t.s.sealed(backend, t.s.endpoints[t.p.saddr])
	if returnOf(fe) == api.ReturnDSR && !t.s.inPool(t.p.saddr) {
		t.out.Return = fmt.Sprintf("from %s straight to the client, as from %s (dsr)", addrOf(node), t.req.Addr)
	} else {
		t.out.Return = fmt.Sprintf("in VXLAN%s from %s back to this node, and from here to the client", inWords(sealed), addrOf(node))
	}
	return t.overlay("forwarded-tunnel", node, sealed)
}

// remembered is what choose of frontend.h finds for a packet in the middle of a flow.
func (t *tracer) remembered(fe bpf.OrchFrontend) (bpf.OrchBackend, bool, error) {
	now, err := nowTicks()
	if err != nil {
		return bpf.OrchBackend{}, false, err
	}
	k := bpf.OrchFlowKey{Client: t.p.saddr, Dest: t.p.daddr, ClientPort: t.p.sport, DestPort: t.p.dport, Proto: t.p.proto}
	key, lasting, brief := any(k), "flows", "brief_flows"
	if client := t.req.Client.Addr(); !client.Is4() {
		key, lasting, brief = bpf.OrchFlow6Key{K: k, Client: addr6(client), Dest: addr6(t.req.Addr)}, "flows6", "brief_flows6"
	}
	var f bpf.OrchFlow
	if t.d.maps[lasting].Lookup(key, &f) != nil && t.d.maps[brief].Lookup(key, &f) != nil {
		return bpf.OrchBackend{}, false, nil // not there
	}
	b := t.s.backends[f.Backend]
	return b, b.Addr == f.Addr && b.Frontend == fe.Id && !t.d.flowEnded(k, f, now), nil
}
