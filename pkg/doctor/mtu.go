package doctor

import (
	"fmt"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// mtu judges the size that reaches each other node. What is not answered at all
// is overlay's business.
func mtu(f *api.NodeFacts) []Finding {
	var good []string
	var out []Finding
	for _, p := range f.Peers {
		switch {
		case p.Overlay.Largest == 0:
		case p.Overlay.Largest == p.Overlay.Tried:
			good = append(good, p.Hostname)
		default:
			const do = "set the MTU of every node's uplink to the smallest size that is told of, or mend the network between these two"
			out = append(out, bad(Fail, do, "%s has an MTU of %d, but of what it sends to %s only packets of up to %d bytes arrive: larger ones are lost",
				f.Uplink, p.Overlay.Tried, p.Hostname, p.Overlay.Largest))
		}
	}
	if len(good) > 0 {
		out = append(out, ok("%d bytes of %s reach %s in one piece", f.UplinkMTU, f.Uplink, strings.Join(good, ", ")))
	}
	if len(f.Peers) == 0 {
		out = append(out, ok("%s has %d; there is no other node", f.Uplink, f.UplinkMTU))
	}
	return out
}

// taskMTU finds tasks that send packets which do not fit the tunnel: those that
// were started before the uplink's MTU was made smaller.
func taskMTU(f *api.NodeFacts) []Finding {
	want := f.UplinkMTU - api.OverlayOverhead
	var large, small []string
	for _, l := range f.TaskLinks {
		name := fmt.Sprintf("%s (%d)", l.Device, l.MTU)
		switch {
		case l.MTU > want:
			large = append(large, name)
		case l.MTU < want:
			small = append(small, name)
		}
	}
	var out []Finding
	const again = "start these tasks again: theirs is set when they start"
	if len(large) > 0 {
		out = append(out, bad(Warn, again, "larger than the %d that fit the tunnel: %s; each connection loses its first large packet", want, strings.Join(large, ", ")))
	}
	if len(small) > 0 {
		out = append(out, bad(Warn, again, "smaller than the %d that fit the tunnel: %s", want, strings.Join(small, ", ")))
	}
	if len(out) == 0 {
		out = append(out, ok("%d, for %s", want, plural(len(f.TaskLinks), "task")))
	}
	return out
}
