package dataplane

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/loadbalancer"
	"github.com/orch-dev/orch/pkg/api"
)

// state is the content of the maps that a plan determines, in their own terms.
type state struct {
	node      bpf.OrchNodeConfig
	members   map[uint32]bpf.OrchMemberFlags
	endpoints map[uint32]bpf.OrchEndpoint
	pairs     map[bpf.OrchNetPair]uint32
	frontends map[bpf.OrchFrontend6Key]bpf.OrchFrontend
	backends  map[uint32]bpf.OrchBackend
	// tables has the Maglev table of each frontend, by id, with its size first;
	// nil stands for one whose content is not known.
	tables map[uint32][]uint32
	// candidates has what each table was computed from, as text.
	candidates map[uint32]string
	// places has the ids of backends.
	places map[place]uint32
	// tunnels are the interfaces that encrypt. They are in no map but for the one
	// to send by.
	tunnels []int
}

// devices are the interfaces that the plan has, by the purpose of their program.
func (s *state) devices() map[string]map[int]bool {
	tasks, tunnels := make(map[int]bool), make(map[int]bool)
	for _, e := range s.endpoints {
		if e.Ifindex != 0 {
			tasks[int(e.Ifindex)] = true
		}
	}
	for _, ifindex := range s.tunnels {
		if ifindex != 0 {
			tunnels[ifindex] = true
		}
	}
	return map[string]map[int]bool{taskTC: tasks, tunnelTC: tunnels}
}

// tunnelMissing is TUNNEL_MISSING of types.h.
const tunnelMissing = math.MaxUint32

// tunnelOf is what node_config says of the encryption.
func tunnelOf(plan api.NetworkPlan) uint32 {
	if len(plan.Tunnels.Epochs) == 0 && !slices.ContainsFunc(plan.Endpoints, func(e api.PlanEndpoint) bool { return e.Encrypted }) {
		return 0
	}
	if device := plan.Tunnels.SendDevice(); device != 0 {
		return uint32(device)
	}
	return tunnelMissing
}

// memberFlags says what packets can go to a node.
func memberFlags(m api.Member, tunnels api.TunnelPlan) bpf.OrchMemberFlags {
	flags := bpf.OrchMemberFlagsMEMBER_KNOWN
	if slices.ContainsFunc(m.Keys, func(k api.TunnelKey) bool { return k.Epoch == tunnels.Send }) {
		flags |= bpf.OrchMemberFlagsMEMBER_ENCRYPTS
	}
	return flags
}

// place is what a backend keeps its id by: two frontends may share an address.
type place struct{ frontend, addr uint32 }

// frontendName is what only the plan knows of a frontend.
type frontendName struct {
	key     api.FrontendKey
	service string
}

// check refuses a plan that the maps cannot express.
func check(plan api.NetworkPlan, cfg Config) error {
	var errs []error
	empty := len(plan.Members) == 0 && len(plan.Endpoints) == 0 && len(plan.Frontends) == 0
	if !empty || plan.Underlay.IsValid() {
		if !is4(plan.Underlay) {
			errs = append(errs, fmt.Errorf("underlay address %w", notIPv4(plan.Underlay)))
		}
		if !is4(plan.Pool.Addr()) {
			errs = append(errs, fmt.Errorf("pool %w", notIPv4(plan.Pool.Addr())))
		}
		if plan.Pool6.IsValid() && (plan.Pool6.Addr().Is4() || plan.Pool6.Bits() != api.Pool6Bits) {
			errs = append(errs, fmt.Errorf("IPv6 pool %s: want a prefix of %d bits", plan.Pool6, api.Pool6Bits))
		}
	}
	for _, m := range plan.Members {
		if !is4(m.Addr) {
			errs = append(errs, fmt.Errorf("address of member %s %w", m.Node, notIPv4(m.Addr)))
		}
	}
	for _, e := range plan.Endpoints {
		if !is4(e.Addr) {
			errs = append(errs, fmt.Errorf("endpoint %w", notIPv4(e.Addr)))
		}
		if !is4(e.Node) {
			errs = append(errs, fmt.Errorf("node of endpoint %s %w", e.Addr, notIPv4(e.Node)))
		}
	}
	seen := make(map[api.FrontendKey]bool, len(plan.Frontends))
	for _, f := range plan.Frontends {
		if seen[f.FrontendKey] {
			errs = append(errs, fmt.Errorf("frontend %s is there twice", describeKey(f.FrontendKey)))
		}
		seen[f.FrontendKey] = true
		errs = append(errs, checkFrontend(f))
	}
	return errors.Join(append(errs, checkNumbers(plan, cfg))...)
}

func is4(a netip.Addr) bool { return a.Unmap().Is4() }

func notIPv4(a netip.Addr) error { return fmt.Errorf("%q: want an IPv4 address", a) }

func checkFrontend(f api.Frontend) error {
	var errs []error
	if f.Virtual() && !is4(f.Addr) {
		errs = append(errs, fmt.Errorf("virtual address %w", notIPv4(f.Addr)))
	}
	for _, b := range f.Backends {
		if !is4(b.Addr) {
			errs = append(errs, fmt.Errorf("backend of %s %w", describeKey(f.FrontendKey), notIPv4(b.Addr)))
		}
	}
	return errors.Join(errs...)
}

// checkNumbers refuses more than the maps have room for.
func checkNumbers(plan api.NetworkPlan, cfg Config) error {
	backends := 0
	for _, f := range plan.Frontends {
		backends += len(f.Backends)
	}
	var errs []error
	for _, limit := range []struct {
		what      string
		have, max int
	}{
		{"members", len(plan.Members), int(cfg.MaxMembers)},
		{"endpoints", len(plan.Endpoints), int(cfg.MaxEndpoints)},
		{"frontends", len(plan.Frontends), int(cfg.MaxFrontends) - 1},
		{"backends", backends, int(cfg.MaxBackends) - 1},
	} {
		if limit.have > limit.max {
			errs = append(errs, fmt.Errorf("%d %s, and the data plane was opened for %d", limit.have, limit.what, limit.max))
		}
	}
	return errors.Join(errs...)
}

func describeKey(k api.FrontendKey) string {
	if k.Virtual() {
		return k.Addr.String()
	}
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(k.Addr, k.Port), k.Protocol)
}

// wanted computes the content that a plan asks for. Frontends and backends
// that are in have keep their ids.
func wanted(plan api.NetworkPlan, have *state, mtu int) *state {
	s := &state{
		members:   make(map[uint32]bpf.OrchMemberFlags),
		endpoints: make(map[uint32]bpf.OrchEndpoint),
		pairs:     make(map[bpf.OrchNetPair]uint32),
		frontends: make(map[bpf.OrchFrontend6Key]bpf.OrchFrontend),
		backends:  make(map[uint32]bpf.OrchBackend),
		tables:    make(map[uint32][]uint32),

		candidates: make(map[uint32]string),
		places:     make(map[place]uint32),
		tunnels:    plan.Tunnels.Devices,
	}
	if plan.Underlay.IsValid() {
		bits := uint32(0xffffffff) << (32 - plan.Pool.Bits())
		var mask [4]byte
		binary.BigEndian.PutUint32(mask[:], bits)
		s.node = bpf.OrchNodeConfig{
			Underlay:   be32(plan.Underlay),
			Pool:       be32(plan.Pool.Masked().Addr()),
			PoolMask:   binary.NativeEndian.Uint32(mask[:]),
			Mtu:        uint32(mtu),
			Generation: uint64(plan.Generation),
			Tunnel:     tunnelOf(plan),
		}
		if plan.Pool6.IsValid() {
			w := addr6(plan.Pool6.Addr()).W
			s.node.Pool6 = [3]uint32(w[:3])
		}
	}
	for _, m := range plan.Members {
		s.members[be32(m.Addr)] = memberFlags(m, plan.Tunnels)
	}
	sets, here := make(networkSets), make(map[uint64]bool)
	for _, e := range plan.Endpoints {
		v := endpointValue(e, plan.Underlay, sets)
		s.endpoints[be32(e.Addr)] = v
		if e.Node == plan.Underlay {
			here[v.Netset] = true
		}
	}
	s.addFrontends(plan, have, sets)
	s.pairs = sets.pairs(here)
	return s
}

func endpointValue(e api.PlanEndpoint, underlay netip.Addr, sets networkSets) bpf.OrchEndpoint {
	v := bpf.OrchEndpoint{Node: be32(e.Node), Netset: sets.add(e.Networks)}
	if e.Node == underlay {
		v.Ifindex = uint32(e.IfIndex)
	}
	if e.Outside {
		v.Flags |= bpf.OrchEndpointFlagsENDPOINT_OUTSIDE
	}
	if e.Encrypted {
		v.Flags |= bpf.OrchEndpointFlagsENDPOINT_ENCRYPTED
	}
	return v
}

func (s *state) addFrontends(plan api.NetworkPlan, have *state, sets networkSets) {
	frontendIDs, backendIDs := newIDs(), newIDs()
	places := make(map[place]uint32, len(have.backends))
	for _, f := range have.frontends {
		frontendIDs.taken[f.Id] = true
	}
	for id, b := range have.backends {
		backendIDs.taken[id] = true
		places[place{b.Frontend, b.Addr}] = id
	}
	for _, f := range plan.Frontends {
		fe, ok := have.frontends[frontendKey(f.FrontendKey)]
		if !ok {
			fe.Id = frontendIDs.next()
		}
		for _, b := range f.Backends {
			at := place{fe.Id, be32(b.Addr)}
			id, ok := places[at]
			if !ok {
				id = backendIDs.next()
			}
			s.places[at] = id
		}
		s.addFrontend(f, fe.Id, have, sets, s)
	}
}

// addFrontend adds a frontend whose backends have their places, and its table:
// that of have, if it is of the same backends. Where they are stands in at.
func (s *state) addFrontend(f api.Frontend, id uint32, have *state, sets networkSets, at *state) {
	s.frontends[frontendKey(f.FrontendKey)] = frontendValue(f, id, sets)
	var candidates []loadbalancer.Backend
	var ids []uint32
	for _, b := range f.Backends {
		v := bpf.OrchBackend{Addr: be32(b.Addr), Port: be16(b.Port), Frontend: id}
		endpoint := at.endpoints[v.Addr]
		v.Node = endpoint.Node
		if endpoint.Flags&bpf.OrchEndpointFlagsENDPOINT_ENCRYPTED != 0 {
			v.Flags |= bpf.OrchBackendFlagsBACKEND_ENCRYPTED
		}
		if b.Draining {
			v.Flags |= bpf.OrchBackendFlagsBACKEND_DRAINING
		}
		if f.DSR {
			v.Flags |= bpf.OrchBackendFlagsBACKEND_DSR
		}
		backend := s.places[place{id, v.Addr}]
		s.backends[backend] = v
		if !b.Draining && at.reachable(v.Addr) {
			candidates = append(candidates, loadbalancer.Backend{
				Name:   netip.AddrPortFrom(b.Addr, b.Port).String(),
				Weight: b.Weight,
			})
			ids = append(ids, backend)
		}
	}
	if !slices.ContainsFunc(candidates, func(c loadbalancer.Backend) bool { return c.Weight > 0 }) {
		for i := range candidates { // better one that is not preferred than none
			candidates[i].Weight = 1
		}
	}
	s.candidates[id] = fmt.Sprint(candidates, ids)
	if known := have.tables[id]; known != nil && have.candidates[id] == s.candidates[id] {
		s.tables[id] = known
		return
	}
	s.tables[id] = table(candidates, ids)
}

func frontendValue(f api.Frontend, id uint32, sets networkSets) bpf.OrchFrontend {
	v := bpf.OrchFrontend{Id: id, Netset: sets.add(f.Networks)}
	if f.Host {
		v.Flags |= bpf.OrchFrontendFlagsFRONTEND_HOST
	}
	if f.Affinity {
		v.Flags |= bpf.OrchFrontendFlagsFRONTEND_AFFINITY
	}
	if f.DSR {
		v.Flags |= bpf.OrchFrontendFlagsFRONTEND_DSR
	}
	return v
}

// reachable reports whether packets can be delivered to an endpoint: one of
// this node only once its interface is there.
func (s *state) reachable(addr uint32) bool {
	e, ok := s.endpoints[addr]
	return ok && (e.Node != s.node.Underlay || e.Ifindex != 0)
}

// table is the content of a frontend's inner map: the size M, then M ids.
func table(candidates []loadbalancer.Backend, ids []uint32) []uint32 {
	m := loadbalancer.Size(len(candidates))
	places := loadbalancer.Table(candidates, m)
	content := make([]uint32, len(places)+1)
	content[0] = uint32(len(places))
	for at, i := range places {
		content[at+1] = ids[i]
	}
	return content
}

// ids hands out the lowest numbers, from 1 on, that are not taken.
type ids struct {
	taken map[uint32]bool
	last  uint32
}

func newIDs() *ids { return &ids{taken: make(map[uint32]bool)} }

func (i *ids) next() uint32 {
	for i.last++; i.taken[i.last]; i.last++ {
	}
	return i.last
}

// networkSets collects the distinct sets of networks, by their name. The name
// is a digest, so that it is the same after a restart.
type networkSets map[uint64][]uint32

func (n networkSets) add(networks []uint32) uint64 {
	if len(networks) == 0 {
		return 0
	}
	h := sha256.New()
	for _, id := range networks {
		h.Write(binary.BigEndian.AppendUint32(nil, id))
	}
	name := binary.BigEndian.Uint64(h.Sum(nil))
	n[name] = networks
	return name
}

// pairs gives the pairs of different sets that have a network in common, of which the
// first is one of those that tasks on this node have: it is they who ask. In a cluster
// where a network is shared by all stacks every set makes a pair with every other.
func (n networkSets) pairs(here map[uint64]bool) map[bpf.OrchNetPair]uint32 {
	pairs := make(map[bpf.OrchNetPair]uint32)
	for a := range here {
		for b, bs := range n {
			if a != b && slices.ContainsFunc(n[a], func(id uint32) bool { return slices.Contains(bs, id) }) {
				pairs[bpf.OrchNetPair{A: a, B: b}] = 1
			}
		}
	}
	return pairs
}
