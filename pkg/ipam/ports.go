package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// Ports that are allocated to services that do not care which they get.
const (
	FirstAutoPort = 30000
	LastAutoPort  = 32767
)

// PortConflict says why service cannot publish the ports it asks for: one of
// them is another service's, is named twice, or is needed by orch itself. A
// port that is restricted to an address conflicts with the same port on that
// address and on all addresses. Two services may both have a port on the nodes of
// their tasks alone: their tasks are then on different nodes. The service may be in the snapshot already.
func PortConflict(snap *api.Snapshot, service *api.Service) error {
	var claims claims
	for _, s := range api.Sorted(snap.Services) {
		if s.ID == service.ID {
			continue
		}
		for _, port := range append(slices.Clone(s.Ports), s.Spec.Ports...) {
			claims.add(port, s.Spec.Name)
		}
	}
	for _, port := range service.Spec.Ports {
		if port.Published == 0 {
			continue
		}
		if user := reserved(snap, port); user != "" {
			return fmt.Errorf("port %s is used by orch itself (%s)", show(port), user)
		}
		if owner, taken := claims.owner(port, service.Spec.Name); taken {
			if owner == service.Spec.Name {
				return fmt.Errorf("port %s is published twice by service %s", show(port), owner)
			}
			return fmt.Errorf("port %s is already published by service %s", show(port), owner)
		}
		claims.add(port, service.Spec.Name)
	}
	return nil
}

// reserved names what of orch listens on the port on every node, if anything.
func reserved(snap *api.Snapshot, port api.Port) string {
	uses := []struct {
		port     uint16
		protocol api.Protocol
		name     string
	}{
		{api.OverlayPort, api.UDP, "overlay"},
		{api.MetricsPort, api.TCP, "metrics"},
	}
	for _, u := range uses {
		if port.Published == u.port && port.Protocol == u.protocol {
			return u.name
		}
	}
	for _, n := range snap.Nodes {
		if port.Published == n.APIPort && port.Protocol == api.TCP {
			return "API"
		}
		if port.Published == n.GossipPort {
			return "gossip"
		}
	}
	return ""
}

// assignPorts makes each service's Ports follow its Spec.Ports. A service keeps
// the automatic ports that it has.
func (p *planner) assignPorts() {
	var claims claims
	services := byAge(p.snap.Services)
	wanted := make([][]api.Port, len(services))
	for i, s := range services {
		wanted[i] = keepAutomatic(s)
		for _, port := range wanted[i] {
			// What a service has is its own, however old the others are.
			if slices.Contains(s.Ports, port) {
				claims.add(port, s.Spec.Name)
			}
		}
	}
	for i, s := range services {
		ports := p.completePorts(s, wanted[i], &claims)
		if !slices.Equal(ports, s.Ports) {
			p.service(s).Ports = ports
		}
	}
}

// keepAutomatic returns Spec.Ports with the automatic ports filled in that were
// allocated before, each used once.
func keepAutomatic(s *api.Service) []api.Port {
	ports := slices.Clone(s.Spec.Ports)
	had := slices.Clone(s.Ports)
	for i, want := range ports {
		if want.Published != 0 {
			continue
		}
		at := slices.IndexFunc(had, func(h api.Port) bool {
			auto := h.Published >= FirstAutoPort && h.Published <= LastAutoPort
			h.Published = 0
			return auto && h == want
		})
		if at >= 0 {
			ports[i] = had[at]
			had = slices.Delete(had, at, at+1)
		}
	}
	return ports
}

// completePorts claims the ports that the service does not have yet. One that
// cannot be had is a problem, and left out.
func (p *planner) completePorts(s *api.Service, wanted []api.Port, claims *claims) []api.Port {
	var ports []api.Port
	for _, port := range wanted {
		if slices.Contains(s.Ports, port) && !slices.Contains(ports, port) {
			ports = append(ports, port)
			continue
		}
		if port.Published == 0 && !claims.allocate(&port) {
			p.portProblem(s, fmt.Sprintf("no port from %d to %d is free for port %d of service %s",
				FirstAutoPort, LastAutoPort, port.Target, s.Spec.Name))
			continue
		}
		if owner, taken := claims.owner(port, s.Spec.Name); taken {
			p.portProblem(s, fmt.Sprintf("service %s cannot publish port %s: service %s does", s.Spec.Name, show(port), owner))
			continue
		}
		claims.add(port, s.Spec.Name)
		ports = append(ports, port)
	}
	return ports
}

func (p *planner) portProblem(s *api.Service, text string) {
	p.problems = append(p.problems, Problem{api.Ref{Kind: api.KindService, ID: string(s.ID)}, text})
}

// portKey is what two services cannot both publish, but for the address.
type portKey struct {
	port     uint16
	protocol api.Protocol
}

type claim struct {
	host  netip.Addr // unset: all addresses
	alone bool       // on the nodes of the owner's tasks
	owner string
}

// claims are published ports with their owners.
type claims map[portKey][]claim

func (c *claims) add(port api.Port, owner string) {
	if port.Published == 0 {
		return
	}
	if *c == nil {
		*c = claims{}
	}
	key := portKey{port.Published, port.Protocol}
	(*c)[key] = append((*c)[key], claim{hostOf(port), port.Host, owner})
}

// owner returns who has the port where a service would publish it too.
func (c *claims) owner(port api.Port, service string) (string, bool) {
	host := hostOf(port)
	for _, other := range (*c)[portKey{port.Published, port.Protocol}] {
		if port.Host && other.alone && other.owner != service {
			continue
		}
		if !host.IsValid() || !other.host.IsValid() || host == other.host {
			return other.owner, true
		}
	}
	return "", false
}

// allocate sets the lowest free automatic port.
func (c *claims) allocate(port *api.Port) bool {
	for n := uint16(FirstAutoPort); n <= LastAutoPort; n++ {
		port.Published = n
		if _, taken := c.owner(*port, ""); !taken {
			return true
		}
	}
	port.Published = 0
	return false
}

// hostOf is the one address that the port is published on, or unset for all.
func hostOf(port api.Port) netip.Addr {
	if port.HostIP.IsUnspecified() {
		return netip.Addr{}
	}
	return port.HostIP
}

func show(port api.Port) string {
	if host := hostOf(port); host.IsValid() {
		return fmt.Sprintf("%s/%s", netip.AddrPortFrom(host, port.Published), port.Protocol)
	}
	return fmt.Sprintf("%d/%s", port.Published, port.Protocol)
}
