package dataplane

import (
	"maps"
	"net/netip"

	"github.com/orch-dev/orch/bpf"
)

// flowRecord is an entry of the flows of either family.
type flowRecord struct {
	id   flowID
	key  bpf.OrchFlowKey
	flow bpf.OrchFlow
}

// sessionRecord is an entry of the sessions of either family.
type sessionRecord struct {
	id      flowID
	key     bpf.OrchSessionKey
	session bpf.OrchSession
}

func (d *Dataplane) flowRecords() ([]flowRecord, error) {
	flows, err := lastingAndBrief[bpf.OrchFlowKey, bpf.OrchFlow](d, "flows")
	if err != nil {
		return nil, err
	}
	flows6, err := lastingAndBrief[bpf.OrchFlow6Key, bpf.OrchFlow](d, "flows6")
	if err != nil {
		return nil, err
	}
	all := make([]flowRecord, 0, len(flows)+len(flows6))
	for k, f := range flows {
		all = append(all, flowRecord{flowIDOf(k), k, f})
	}
	for k, f := range flows6 {
		all = append(all, flowRecord{flowIDOf6(k), k.K, f})
	}
	return all, nil
}

func flowIDOf(k bpf.OrchFlowKey) flowID {
	return flowID{addrPort(k.Client, k.ClientPort), addrPort(k.Dest, k.DestPort), k.Proto}
}

func flowIDOf6(k bpf.OrchFlow6Key) flowID {
	return flowID{addrPort6(k.Client, k.K.ClientPort), addrPort6(k.Dest, k.K.DestPort), k.K.Proto}
}

// lastingAndBrief reads the flows or sessions, and those that are open for
// moments only.
func lastingAndBrief[K comparable, V any](d *Dataplane, name string) (map[K]V, error) {
	all, err := entries[K, V](d.maps["brief_"+name])
	if err != nil {
		return nil, err
	}
	lasting, err := entries[K, V](d.maps[name])
	maps.Copy(all, lasting)
	return all, err
}

func (d *Dataplane) sessionRecords() ([]sessionRecord, error) {
	sessions, err := lastingAndBrief[bpf.OrchSessionKey, bpf.OrchSession](d, "sessions")
	if err != nil {
		return nil, err
	}
	sessions6, err := lastingAndBrief[bpf.OrchSession6Key, bpf.OrchSession6](d, "sessions6")
	if err != nil {
		return nil, err
	}
	all := make([]sessionRecord, 0, len(sessions)+len(sessions6))
	for k, s := range sessions {
		all = append(all, sessionRecord{flowID{addrPort(s.Client, s.ClientPort), addrPort(s.Dest, s.DestPort), k.Proto}, k, s})
	}
	for k, s := range sessions6 {
		all = append(all, sessionRecord{flowID{addrPort6(s.Client, s.S.ClientPort), addrPort6(s.Dest, s.S.DestPort), k.K.Proto}, k.K, s.S})
	}
	return all, nil
}

func addrPort6(addr bpf.OrchAddr6, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(addrOf6(addr), be16(port))
}

// in4 is the IPv4 address in one of the cluster's IPv6 addresses; any other is
// returned as it is.
func (d *Dataplane) in4(addr netip.Addr) netip.Addr {
	if d.have == nil || addr.Is4() || d.have.node.Pool6 == [3]uint32{} {
		return addr
	}
	if w := addr6(addr).W; [3]uint32(w[:3]) == d.have.node.Pool6 {
		return addrOf(w[3])
	}
	return addr
}
