package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// directReturn judges whether the network lets a node send from the address of
// another, as direct server return does: by answers of the other nodes that came
// here so. Where no service asks for it, that it would not work is no fault.
func directReturn(f *api.NodeFacts) []Finding {
	used := "no service has it"
	if len(f.DSR) > 0 {
		used = fmt.Sprintf("%s %s it", enumerate(f.DSR), have(len(f.DSR)))
	}
	var passes, lost, older []string
	for _, p := range f.Peers {
		switch {
		case p.DSR.As == "" || p.Overlay.Largest == 0: // overlay's business
		case p.DSR.Arrived:
			passes = append(passes, p.Hostname)
		case p.DSR.Source.IsValid():
			older = append(older, p.Hostname)
		default:
			lost = append(lost, fmt.Sprintf("%s sends from the address of %s", p.Hostname, p.DSR.As))
		}
	}
	var out []Finding
	if len(lost) > 0 {
		found := fmt.Sprintf("not here arrives what %s, though what it sends from its own does; %s", strings.Join(lost, ", and what "), used)
		if len(f.DSR) == 0 {
			out = append(out, ok("would not work: %s", found))
		} else {
			out = append(out, bad(Fail, whatLosesSources(f), "%s", found))
		}
	}
	if len(older) > 0 {
		out = append(out, ok("not known of what %s would send: an older orch runs there; %s", enumerate(older), used))
	}
	if len(passes) > 0 {
		out = append(out, ok("what %s %s from another node's address arrives here; %s", enumerate(passes), send(len(passes)), used))
	}
	if len(out) == 0 {
		out = append(out, ok("not tried: that takes two other nodes that answer; %s", used))
	}
	return out
}

// whatLosesSources says what to look for, and how to do without.
func whatLosesSources(f *api.NodeFacts) string {
	const rest = "let the network between these nodes pass it (source guards of switches and clouds, rp_filter of routers, firewalls that ask for a connection), " +
		"or go back through the tunnel: `orch cluster update --return tunnel`, x-orch: {return: tunnel}"
	if f.StrictSource {
		return fmt.Sprintf("sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.%s.rp_filter=2 on this node, which is strict itself, and see again; or ", f.Uplink) + rest
	}
	return rest
}

func enumerate(names []string) string {
	names = slices.Clone(names)
	if last := len(names) - 1; last > 0 {
		return strings.Join(names[:last], ", ") + " and " + names[last]
	}
	return strings.Join(names, "")
}

func have(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

func send(n int) string {
	if n == 1 {
		return "sends"
	}
	return "send"
}
