package doctor

import (
	"fmt"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// ports judges the ports that daemons talk to each other on.
func ports(f *api.NodeFacts) []Finding {
	var good []string
	var out []Finding
	for _, p := range f.Peers {
		before := len(out)
		if unreachable(p) {
			out = append(out, bad(Fail, "see whether the machine runs, and the network between it and this node", "%s (%s) answers on no port: %s", p.Hostname, p.Addr, p.APIError))
			continue
		}
		for _, port := range []struct {
			number   uint16
			protocol string
			what     string
			problem  string
		}{
			{p.APIPort, "tcp", "the API and Raft", p.APIError},
			{p.GossipPort, "tcp", "gossip", p.GossipTCPError},
			{p.GossipPort, "udp", "gossip", p.GossipUDPError},
		} {
			if port.problem != "" {
				do := fmt.Sprintf("see whether orch daemon runs on %s, and let %d/%s through the firewalls between the nodes", p.Hostname, port.number, port.protocol)
				out = append(out, bad(Fail, do, "%s does not answer on %d/%s (%s): %s", p.Hostname, port.number, port.protocol, port.what, port.problem))
			}
		}
		if len(out) == before {
			good = append(good, p.Hostname)
		}
	}
	if len(good) > 0 {
		out = append(out, ok("API and gossip of %s answer", strings.Join(good, ", ")))
	}
	return out
}

// unreachable reports whether nothing at all answers: that is one fault, not one
// of each port.
func unreachable(p api.PeerFacts) bool {
	return p.APIError != "" && p.GossipTCPError != "" && p.GossipUDPError != "" && p.Overlay.Largest == 0
}

// overlay judges whether the other nodes' data planes answer a probe in VXLAN.
func overlay(f *api.NodeFacts) []Finding {
	var good []string
	var out []Finding
	for _, p := range f.Peers {
		if p.Overlay.Largest > 0 {
			good = append(good, p.Hostname)
		}
		if p.Overlay.Largest > 0 || unreachable(p) {
			continue
		}
		found := fmt.Sprintf("the data plane of %s does not answer on %d/udp (VXLAN)", p.Hostname, api.OverlayPort)
		if p.OverlayError != "" {
			found += ": " + p.OverlayError
		}
		out = append(out, bad(Fail, fmt.Sprintf("let %d/udp through the networks between %s and this node (%s), in both directions", api.OverlayPort, p.Hostname, p.Addr), "%s", found))
	}
	if len(good) > 0 {
		out = append(out, ok("the data planes of %s answer on %d/udp", strings.Join(good, ", "), api.OverlayPort))
	}
	return out
}

// reservedPorts finds published ports that the kernel may give to a connection
// of the node's own: answers to it would be taken for clients'. The daemon keeps
// them from that, if it can and nobody undoes it.
func reservedPorts(f *api.NodeFacts) []Finding {
	var clash []string
	for _, port := range f.Published {
		if port >= f.Ephemeral[0] && port <= f.Ephemeral[1] && !reserved(f, port) {
			clash = append(clash, fmt.Sprint(port))
		}
	}
	if len(clash) == 0 {
		return []Finding{ok("no published port is one that the kernel gives to clients (%d to %d)", f.Ephemeral[0], f.Ephemeral[1])}
	}
	list := strings.Join(clash, ",")
	return []Finding{bad(Warn, "sysctl -w net.ipv4.ip_local_reserved_ports="+list+", with those that it has already; the daemon's log says why it did not",
		"the kernel may use %s for connections of the node's own, which the data plane then takes for clients'", list)}
}

func reserved(f *api.NodeFacts, port uint16) bool {
	for _, r := range f.Reserved {
		if port >= r[0] && port <= r[1] {
			return true
		}
	}
	return false
}
