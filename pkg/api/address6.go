package api

import (
	"crypto/sha256"
	"net/netip"
)

// Pool6Bits is the length of the prefix of a cluster's IPv6 addresses: the rest
// is an IPv4 address.
const Pool6Bits = 96

// Pool6 is the prefix of a cluster's IPv6 addresses: a unique local one
// (RFC 4193), which the cluster's ID determines. Of its 64 bits for interfaces
// the first 32 are zero.
func Pool6(cluster string) netip.Prefix {
	digest := sha256.Sum256([]byte("orch IPv6 prefix of " + cluster))
	var addr [16]byte
	addr[0] = 0xfd
	copy(addr[1:8], digest[:])
	return netip.PrefixFrom(netip.AddrFrom16(addr), Pool6Bits)
}

// Address6 is the IPv6 address beside an IPv4 address of the cluster: a task's
// or a virtual IP's.
func Address6(pool6 netip.Prefix, addr netip.Addr) netip.Addr {
	six, four := pool6.Addr().As16(), addr.As4()
	copy(six[12:], four[:])
	return netip.AddrFrom16(six)
}
