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

func frontendKey(k api.FrontendKey) bpf.OrchFrontendKey {
	key := bpf.OrchFrontendKey{Proto: protocolNumber(k.Protocol)}
	if !k.Addr.IsUnspecified() {
		key.Addr = be32(k.Addr)
	}
	if !k.Virtual() {
		key.Port = be16(k.Port)
	}
	return key
}

func apiKey(k bpf.OrchFrontendKey) api.FrontendKey {
	return api.FrontendKey{Addr: addrOf(k.Addr), Port: be16(k.Port), Protocol: protocolOf(k.Proto)}
}
