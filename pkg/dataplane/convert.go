package dataplane

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
)

// The maps hold addresses and ports in network order; here they are integers
// with those bytes in memory.

// be32 is an IPv4 address as the maps hold it.
func be32(addr netip.Addr) uint32 {
	a := addr.Unmap().As4()
	return binary.NativeEndian.Uint32(a[:])
}

func addrOf(n uint32) netip.Addr {
	var a [4]byte
	binary.NativeEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a)
}

// addr6 is an IPv6 address as the maps hold it; an IPv4 address is mapped.
func addr6(addr netip.Addr) (a bpf.OrchAddr6) {
	b := addr.As16()
	for i := range a.W {
		a.W[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return a
}

func addrOf6(a bpf.OrchAddr6) netip.Addr {
	var b [16]byte
	for i, w := range a.W {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

// short is what stands for an address where the programs go by IPv4 addresses:
// short_of of packet.h.
func (s *state) short(addr netip.Addr) uint32 {
	if addr.Unmap().Is4() {
		return be32(addr)
	}
	w := addr6(addr).W
	if [3]uint32(w[:3]) == s.node.Pool6 {
		return w[3]
	}
	if addr == netip.IPv6Loopback() {
		return be32(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	h := (uint64(w[0])<<32 | uint64(w[1])) * 0xff51afd7ed558ccd
	h ^= h >> 32
	h = (h + (uint64(w[2])<<32 | uint64(w[3]))) * 0xc4ceb9fe1a85ec53
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 0xf0000000|uint32(h>>36))
	return binary.NativeEndian.Uint32(b[:])
}

// be16 turns a port into the maps' order and back.
func be16(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func protocolNumber(p api.Protocol) uint8 {
	switch p {
	case api.TCP:
		return unix.IPPROTO_TCP
	case api.UDP:
		return unix.IPPROTO_UDP
	default:
		return 0
	}
}

func protocolOf(n uint8) api.Protocol {
	switch n {
	case unix.IPPROTO_TCP:
		return api.TCP
	case unix.IPPROTO_UDP:
		return api.UDP
	default:
		return ""
	}
}

// frontendKey is the key of a frontend in either family: one for IPv4 has no
// IPv6 address in it.
func frontendKey(k api.FrontendKey) bpf.OrchFrontend6Key {
	key := bpf.OrchFrontend6Key{K: bpf.OrchFrontendKey{Proto: protocolNumber(k.Protocol)}}
	switch {
	case k.Addr.IsUnspecified():
	case k.Addr.Unmap().Is4():
		key.K.Addr = be32(k.Addr)
	default:
		key.Addr = addr6(k.Addr)
	}
	if !k.Virtual() {
		key.K.Port = be16(k.Port)
	}
	return key
}

func apiKey(k bpf.OrchFrontend6Key) api.FrontendKey {
	key := api.FrontendKey{Addr: addrOf(k.K.Addr), Port: be16(k.K.Port), Protocol: protocolOf(k.K.Proto)}
	if k.Addr != (bpf.OrchAddr6{}) {
		key.Addr = addrOf6(k.Addr)
	}
	return key
}

// byFamily splits frontends into those of the two maps.
func byFamily(all map[bpf.OrchFrontend6Key]bpf.OrchFrontend) (v4 map[bpf.OrchFrontendKey]bpf.OrchFrontend, v6 map[bpf.OrchFrontend6Key]bpf.OrchFrontend) {
	v4, v6 = make(map[bpf.OrchFrontendKey]bpf.OrchFrontend), make(map[bpf.OrchFrontend6Key]bpf.OrchFrontend)
	for k, f := range all {
		if k.Addr == (bpf.OrchAddr6{}) {
			v4[k.K] = f
		} else {
			v6[k] = f
		}
	}
	return v4, v6
}
