package dataplane

import (
	"bytes"
	"maps"
	"slices"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
)

// Most plans differ from the one before in the state of a few backends: a task
// became ready, drains, counts for more or less. Comparing two plans costs little,
// least where they share what is the same, and computing the whole state much, so
// that such a plan is put in by itself.

// onlyBackends gives the frontends that are not as in the last plan, and whether
// nothing is different but in their backends, all of which were there before.
func (d *Dataplane) onlyBackends(plan api.NetworkPlan, mtu int) ([]api.Frontend, bool) {
	last := d.last
	if last == nil || d.have == nil || !d.switched || d.have.node.Mtu != uint32(mtu) ||
		plan.Node != last.Node || plan.Underlay != last.Underlay || plan.Pool != last.Pool || plan.Pool6 != last.Pool6 ||
		!equal(plan.Members, last.Members, sameMember) || !sameTunnels(plan.Tunnels, last.Tunnels) ||
		!equal(plan.Endpoints, last.Endpoints, sameEndpoint) ||
		len(plan.Frontends) != len(last.Frontends) {
		return nil, false
	}
	var changed []api.Frontend
	for i, f := range plan.Frontends {
		before := last.Frontends[i]
		if !sameButBackends(f, before) {
			return nil, false
		}
		if equal(f.Backends, before.Backends, func(a, b api.Backend) bool { return a == b }) {
			continue
		}
		if !slices.EqualFunc(f.Backends, before.Backends, func(a, b api.Backend) bool { return a.Addr == b.Addr && a.Port == b.Port }) {
			return nil, false
		}
		changed = append(changed, f)
	}
	return changed, true
}

// equal compares two lists, at once if they are the same piece of memory.
func equal[T any](a, b []T, same func(a, b T) bool) bool {
	if len(a) == len(b) && len(a) > 0 && &a[0] == &b[0] {
		return true
	}
	return slices.EqualFunc(a, b, same)
}

func sameMember(a, b api.Member) bool {
	return a.Node == b.Node && a.Addr == b.Addr && slices.EqualFunc(a.Keys, b.Keys, sameKey)
}

func sameKey(a, b api.TunnelKey) bool { return a.Epoch == b.Epoch && bytes.Equal(a.Public, b.Public) }

func sameTunnels(a, b api.TunnelPlan) bool {
	return a.Send == b.Send && slices.Equal(a.Epochs, b.Epochs) && slices.Equal(a.Devices, b.Devices)
}

func sameEndpoint(a, b api.PlanEndpoint) bool {
	return a.Addr == b.Addr && a.Node == b.Node && a.IfIndex == b.IfIndex && a.Outside == b.Outside && a.Encrypted == b.Encrypted && slices.Equal(a.Networks, b.Networks)
}

func sameButBackends(a, b api.Frontend) bool {
	return a.FrontendKey == b.FrontendKey && a.Service == b.Service && a.Host == b.Host && a.Affinity == b.Affinity && a.DSR == b.DSR &&
		slices.Equal(a.Networks, b.Networks)
}

// amend puts in a plan that differs from the last one in the backends of the
// frontends given.
func (d *Dataplane) amend(plan api.NetworkPlan, changed []api.Frontend) error {
	all := d.have
	have, want := all.part(changed), all.part(nil)
	want.node.Generation = uint64(plan.Generation)
	want.places = all.places
	for _, f := range changed {
		want.addFrontend(f, all.frontends[frontendKey(f.FrontendKey)].Id, have, make(networkSets), all)
	}
	d.have, d.last = nil, nil // read again, should a step fail
	if err := d.add(have, want); err != nil {
		return err
	}
	all.node = want.node
	maps.Copy(all.backends, want.backends)
	maps.Copy(all.tables, want.tables)
	maps.Copy(all.candidates, want.candidates)
	d.have, d.last = all, &plan
	return nil
}

// part is of a state what concerns some of its frontends.
func (s *state) part(frontends []api.Frontend) *state {
	p := &state{
		node:       s.node,
		frontends:  make(map[bpf.OrchFrontend6Key]bpf.OrchFrontend),
		backends:   make(map[uint32]bpf.OrchBackend),
		tables:     make(map[uint32][]uint32),
		candidates: make(map[uint32]string),
	}
	for _, f := range frontends {
		key := frontendKey(f.FrontendKey)
		fe := s.frontends[key]
		p.frontends[key] = fe
		p.tables[fe.Id], p.candidates[fe.Id] = s.tables[fe.Id], s.candidates[fe.Id]
		for _, b := range f.Backends {
			id := s.places[place{fe.Id, be32(b.Addr)}]
			p.backends[id] = s.backends[id]
		}
	}
	return p
}
