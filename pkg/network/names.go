package network

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// Zone is what a node's name server has to know.
type Zone struct {
	// Clients are the tasks of this node, by address, with the numbers of their
	// networks in the order in which their service names them.
	Clients map[netip.Addr][]uint32
	// Inside are the clients that have no way out of the cluster.
	Inside map[netip.Addr]bool
	// Upstreams are the servers, ADDRESS:PORT, that clients have names outside the
	// cluster asked of, if not those of the node.
	Upstreams map[netip.Addr][]string
	// Names are each network's names, in lower case: a service's name and aliases
	// with its virtual IP, and tasks.NAME and tasks.ALIAS with the addresses of
	// its ready tasks that are on the network, which all names of a service that
	// has no virtual IP have. Where services of several stacks
	// share a network and an alias, it has the virtual IPs of all. Addresses
	// ascend. A name without one exists all the same.
	Names map[uint32]map[string][]netip.Addr
}

// Names computes the zone of a node.
func Names(view *api.Snapshot, node api.NodeID) Zone {
	z := Zone{
		Clients:   map[netip.Addr][]uint32{},
		Inside:    map[netip.Addr]bool{},
		Upstreams: map[netip.Addr][]string{},
		Names:     map[uint32]map[string][]netip.Addr{},
	}
	for _, t := range located(view) {
		if t.NodeID != node {
			continue
		}
		z.Clients[t.Endpoint.Addr] = numbers(view, t.Networks)
		if !outside(view, t.Networks) {
			z.Inside[t.Endpoint.Addr] = true
		}
		for _, server := range t.Spec.Options().DNS {
			z.Upstreams[t.Endpoint.Addr] = append(z.Upstreams[t.Endpoint.Addr], netip.AddrPortFrom(server, 53).String())
		}
	}
	for _, n := range view.Networks {
		if n.Number != 0 {
			z.Names[n.Number] = map[string][]netip.Addr{}
		}
	}
	ready := readyTasks(view)
	networks := networkNumbers(view)
	for _, svc := range api.Sorted(view.Services) {
		for _, name := range svc.Spec.Networks {
			if number := networks[name]; number != 0 {
				z.add(view, number, svc, svc.Spec.NetworkAliases[name], ready[svc.ID])
			}
		}
	}
	for _, names := range z.Names {
		for name, addrs := range names {
			slices.SortFunc(addrs, netip.Addr.Compare)
			names[name] = slices.Compact(addrs)
		}
	}
	return z
}

// add names one service, with further names, on one network.
func (z Zone) add(view *api.Snapshot, network uint32, svc *api.Service, aliases []string, ready []*api.Task) {
	var own, each []netip.Addr
	for _, t := range ready {
		if slices.Contains(numbers(view, t.Networks), network) {
			each = append(each, t.Endpoint.Addr)
		}
	}
	switch {
	case svc.Spec.EndpointMode == api.EndpointDNSRR:
		own = each
	case svc.VIP.IsValid():
		own = []netip.Addr{svc.VIP}
	}
	names := z.Names[network]
	for _, name := range append([]string{svc.Spec.Name, svc.Spec.Alias}, aliases...) {
		if name == "" {
			continue
		}
		name = strings.ToLower(name)
		names[name] = append(names[name], own...)
		names["tasks."+name] = append(names["tasks."+name], each...)
	}
}

// readyTasks are the tasks that new connections may go to, by service. Names do
// not take part in what gossip suspects: a wrong hint would be remembered by
// clients.
func readyTasks(view *api.Snapshot) map[api.ServiceID][]*api.Task {
	out := map[api.ServiceID][]*api.Task{}
	for id, tasks := range backends(view) {
		for _, t := range tasks {
			if t.Endpoint.State == api.EndpointReady {
				out[id] = append(out[id], t)
			}
		}
	}
	return out
}
