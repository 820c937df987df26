package dataplane

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
)

const defaultFlowLimit = 1000

// flowID is what a client's flow is on every node.
type flowID struct {
	client, dest netip.AddrPort
	proto        uint8
}

// Flows lists the flows that the node remembers, as their ingress or as their
// backend's node. Ended ones that were not swept yet are left out.
func (d *Dataplane) Flows(req api.NetFlowsRequest) (*api.NetFlows, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.flows()
	if err != nil {
		return nil, err
	}
	out := &api.NetFlows{}
	for _, f := range all {
		f.Verdict = "forwarded-tunnel"
		if f.Serving {
			f.Verdict = "delivered"
		}
		if (req.Verdict == "" || f.Verdict == req.Verdict) && (req.Service == "" || f.Service == req.Service) && (!req.Client.IsValid() || f.Client.Addr() == req.Client) {
			out.Flows = append(out.Flows, *f)
		}
	}
	slices.SortFunc(out.Flows, func(a, b api.NetFlow) int {
		return cmp.Or(cmp.Compare(a.Idle, b.Idle), a.Client.Compare(b.Client), a.Frontend.Compare(b.Frontend), cmp.Compare(a.Protocol, b.Protocol))
	})
	out.Total = len(out.Flows)
	limit := req.Limit
	if limit <= 0 {
		limit = defaultFlowLimit
	}
	out.Flows = out.Flows[:min(limit, out.Total)]
	return out, nil
}

func (d *Dataplane) flows() (map[flowID]*api.NetFlow, error) {
	s, err := d.current()
	if err != nil {
		return nil, err
	}
	now, err := nowTicks()
	if err != nil {
		return nil, err
	}
	all := make(map[flowID]*api.NetFlow)
	flows, err := d.flowRecords()
	if err != nil {
		return nil, err
	}
	for _, r := range flows {
		k, f := r.key, r.flow
		b := s.backends[f.Backend]
		if b.Addr != f.Addr || d.flowEnded(k, f, now) {
			continue
		}
		id := r.id
		nf := &api.NetFlow{
			Protocol: protocolOf(k.Proto), Client: id.client, Frontend: id.dest, Service: d.serviceAt(id.dest, k.Proto),
			Backend: addrPort(b.Addr, b.Port), Ingress: true, State: flowState(k.Proto, f.Flags), Idle: idle(now, f.Seen),
		}
		if nf.Backend.Port() == 0 {
			nf.Backend = netip.AddrPortFrom(nf.Backend.Addr(), id.dest.Port())
		}
		all[id] = nf
	}
	sessions, err := d.sessionRecords()
	if err != nil {
		return nil, err
	}
	for _, r := range sessions {
		k, v, id := r.key, r.session, r.id
		if !s.serves(k, v) || d.sessionEnded(k, v, now) {
			continue
		}
		nf := all[id]
		if nf == nil {
			nf = &api.NetFlow{Protocol: protocolOf(k.Proto), Client: id.client, Frontend: id.dest, Service: d.serviceAt(id.dest, k.Proto), Idle: idle(now, v.Seen)}
			all[id] = nf
		}
		nf.Backend, nf.Serving, nf.Via = addrPort(k.Backend, k.BackendPort), true, addrOf(v.Via)
		nf.DSR = v.Flags&bpf.OrchSeenSEEN_DSR != 0 && v.Via != s.node.Underlay
		nf.State, nf.Idle = flowState(k.Proto, v.Flags), min(nf.Idle, idle(now, v.Seen))
	}
	return all, nil
}

func flowState(proto uint8, seen bpf.OrchSeen) string {
	switch {
	case proto == unix.IPPROTO_UDP:
		return "open"
	case isOver(seen):
		return "closed"
	case seen&bothFins != 0:
		return "closing"
	case seen&bpf.OrchSeenSEEN_ESTABLISHED != 0:
		return "established"
	}
	return "opening"
}

// serviceAt names the service that answers at an address: a published port of
// this or another node, or a virtual IP.
func (d *Dataplane) serviceAt(dest netip.AddrPort, proto uint8) string {
	at := api.FrontendKey{Addr: dest.Addr(), Port: dest.Port(), Protocol: protocolOf(proto)}
	anywhere := at
	anywhere.Addr = netip.IPv4Unspecified()
	virtual := api.FrontendKey{Addr: d.in4(dest.Addr())}
	for _, key := range []bpf.OrchFrontend6Key{frontendKey(at), frontendKey(virtual), frontendKey(anywhere)} {
		if f, ok := d.frontends[key]; ok {
			return f.service
		}
	}
	return ""
}

func addrPort(addr uint32, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(addrOf(addr), be16(port))
}

// idle is how long ago something was seen, to a second.
func idle(now, seen uint32) time.Duration {
	return (time.Duration(idleTicks(now, seen)) << 30).Round(time.Second)
}
