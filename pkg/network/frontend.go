package network

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// frontends are every service's virtual IP and published ports. One without
// backends is there, too: its clients are to be refused, not ignored. But a port
// that is published on the nodes of tasks alone is nothing on any other node.
func frontends(view *api.Snapshot, node api.NodeID, suspects map[api.NodeID]bool) []api.Frontend {
	serving := backends(view)
	networks := networkNumbers(view)
	var out []api.Frontend
	for _, svc := range api.Sorted(view.Services) {
		suspect := suspected(serving[svc.ID], node, suspects)
		affinity := svc.Spec.Balance.Affinity == api.AffinityClient
		behind := func(tasks []*api.Task, port uint16) []api.Backend {
			last := allDrain(tasks)
			here := svc.Spec.Balance.Local && !allDrain(onNode(tasks, node))
			var list []api.Backend
			for _, t := range tasks {
				weight := view.Nodes[t.NodeID].Weight()
				if here && t.NodeID != node {
					weight = 0
				}
				list = append(list, api.Backend{
					Addr:     t.Endpoint.Addr,
					Port:     port,
					Weight:   weight,
					Draining: t.Endpoint.State == api.EndpointDraining && !last || suspect[t.ID],
				})
			}
			return list
		}
		if svc.VIP.IsValid() {
			out = append(out, api.Frontend{
				FrontendKey: api.FrontendKey{Addr: svc.VIP},
				Service:     svc.Spec.Name,
				Networks:    networks.of(svc),
				Affinity:    affinity,
				Backends:    behind(serving[svc.ID], 0),
			})
		}
		for _, p := range svc.Ports {
			tasks := serving[svc.ID]
			if p.Host {
				if tasks = onNode(tasks, node); len(tasks) == 0 {
					continue
				}
			}
			out = append(out, api.Frontend{
				FrontendKey: api.FrontendKey{Addr: hostOf(p), Port: p.Published, Protocol: p.Protocol},
				Service:     svc.Spec.Name,
				Host:        p.Host,
				Affinity:    affinity,
				DSR:         hasDSR(view, svc),
				Backends:    behind(tasks, p.Target),
			})
		}
	}
	slices.SortStableFunc(out, func(a, b api.Frontend) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}

// DSR are the services whose published ports have direct server return, by name.
func DSR(view *api.Snapshot) []string {
	var names []string
	for _, svc := range api.Sorted(view.Services) {
		if len(svc.Ports) > 0 && hasDSR(view, svc) {
			names = append(names, svc.Spec.Name)
		}
	}
	slices.Sort(names)
	return names
}

// hasDSR goes by what the service says, or else the cluster. What tasks on an
// encrypted network send goes to other nodes encrypted, and so by the tunnel.
func hasDSR(view *api.Snapshot, svc *api.Service) bool {
	for _, n := range view.Networks {
		if n.Encrypted && slices.Contains(svc.Spec.Networks, n.Name) {
			return false
		}
	}
	var rule api.Return
	if view.Cluster != nil {
		rule = view.Cluster.Return
	}
	return svc.Spec.Return.Or(rule) == api.ReturnDSR
}

// onNode are those of the tasks that are on a node.
func onNode(tasks []*api.Task, node api.NodeID) []*api.Task {
	var here []*api.Task
	for _, t := range tasks {
		if t.NodeID == node {
			here = append(here, t)
		}
	}
	return here
}

// allDrain reports whether no task takes new flows. Those that leave then take
// them until they stop: that they will is no reason to turn clients away now.
func allDrain(tasks []*api.Task) bool {
	return !slices.ContainsFunc(tasks, func(t *api.Task) bool { return t.Endpoint.State == api.EndpointReady })
}

// backends are the tasks that serve or still may have flows, by service, each
// list by address.
func backends(view *api.Snapshot) map[api.ServiceID][]*api.Task {
	out := map[api.ServiceID][]*api.Task{}
	for _, t := range located(view) {
		serves := t.Endpoint.State == api.EndpointReady || t.Endpoint.State == api.EndpointDraining
		if serves && !t.Status.State.Terminal() && view.Nodes[t.NodeID].State != api.NodeDown {
			out[t.ServiceID] = append(out[t.ServiceID], t)
		}
	}
	return out
}

// suspected are the tasks that get no new flows because their node is believed
// dead. If that left none to serve it is nobody: a rumour may be wrong, and of a
// node whose daemon restarts it is, while a refusal is certain.
func suspected(tasks []*api.Task, node api.NodeID, suspects map[api.NodeID]bool) map[api.TaskID]bool {
	out := map[api.TaskID]bool{}
	trusted := false
	for _, t := range tasks {
		if suspects[t.NodeID] && t.NodeID != node {
			out[t.ID] = true
		} else if t.Endpoint.State == api.EndpointReady {
			trusted = true
		}
	}
	if !trusted {
		return nil
	}
	return out
}

// hostOf is the address that a port is published on, unspecified for all.
func hostOf(p api.Port) netip.Addr {
	if !p.HostIP.IsValid() || p.HostIP.IsUnspecified() {
		return netip.IPv4Unspecified()
	}
	return p.HostIP
}

// byName are networks' numbers by name.
type byName map[string]uint32

func networkNumbers(view *api.Snapshot) byName {
	m := make(byName, len(view.Networks))
	for _, n := range view.Networks {
		m[n.Name] = n.Number
	}
	return m
}

// of are the numbers of a service's networks, ascending.
func (m byName) of(svc *api.Service) []uint32 {
	var out []uint32
	for _, name := range svc.Spec.Networks {
		if n := m[name]; n != 0 {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
