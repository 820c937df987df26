package dataplane_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Fragments arrive in any order, from a client and from a task. The very first
// datagram between two addresses has to come in order.
func testFragments(t *testing.T, c *cluster) {
	for i, w := range c.web[:2] { // on the ingress node, and on another
		c.apply(c.backends(i + 1)...)
		for _, way := range []struct {
			from *space
			addr netip.Addr
			to   netip.AddrPort
		}{
			{c.client, clientAddr, c.nodes[0].published()},
			{c.client, outer6(clientAddr), c.nodes[0].published6()},
			{c.caller.space, c.caller.addr, virtual(appPort)},
			{c.caller.space, inner6(c.caller.addr), netip.AddrPortFrom(inner6(virtualIP), appPort)},
		} {
			from := netip.AddrPortFrom(way.addr, 45800)
			way.from.must(func() error {
				u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(from))
				if err != nil {
					return err
				}
				defer u.Close()
				for id, reverse := range []bool{false, true, true} {
					pieces := fragmented(from, way.to, uint32(1000*i+id+1), make([]byte, 2400))
					if reverse {
						slices.Reverse(pieces)
					}
					for _, piece := range pieces {
						if err := sendWhole(way.to.Addr(), piece); err != nil {
							return err
						}
					}
					buf := make([]byte, 4096)
					u.SetReadDeadline(time.Now().Add(patience))
					n, err := u.Read(buf)
					if err != nil || n != 2400 || !strings.HasPrefix(string(buf), w.name+" ") {
						t.Errorf("%s to %s, reversed %v: %d bytes %.20q, %v; verdicts %v, %v", from, way.to, reverse, n, buf, err, nonZero(c.nodes[0]), nonZero(w.node))
					}
				}
				return nil
			})
		}
	}
}

// fragmented is a UDP datagram in IP packets that carry 800 bytes of it each.
func fragmented(from, to netip.AddrPort, id uint32, data []byte) [][]byte {
	const size = 800
	whole := binary.BigEndian.AppendUint16(nil, from.Port())
	whole = binary.BigEndian.AppendUint16(whole, to.Port())
	whole = binary.BigEndian.AppendUint16(whole, uint16(8+len(data)))
	whole = append(append(whole, 0, 0), data...)
	if from.Addr().Is6() { // where the checksum must be there
		pseudo := slices.Concat(from.Addr().AsSlice(), to.Addr().AsSlice(), []byte{0, 0, whole[4], whole[5], 0, 0, 0, unix.IPPROTO_UDP})
		binary.BigEndian.PutUint16(whole[6:], checksum(append(pseudo, whole...)))
	}
	var pieces [][]byte
	for at := 0; at < len(whole); at += size {
		part := whole[at:min(at+size, len(whole))]
		more := uint16(0)
		if at+size < len(whole) {
			more = 1
		}
		pieces = append(pieces, append(fragmentHeader(from.Addr(), to.Addr(), id, uint16(at), more, len(part)), part...))
	}
	return pieces
}

// fragmentHeader is the IP header of a fragment; at is a multiple of 8.
func fragmentHeader(from, to netip.Addr, id uint32, at, more uint16, length int) []byte {
	if from.Is4() {
		h := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
		binary.BigEndian.PutUint16(h[2:], uint16(20+length))
		binary.BigEndian.PutUint16(h[4:], uint16(id))
		binary.BigEndian.PutUint16(h[6:], more<<13|at/8)
		return slices.Concat(h, from.AsSlice(), to.AsSlice()) // the kernel sums it up
	}
	h := []byte{0x60, 0, 0, 0, 0, 0, unix.IPPROTO_FRAGMENT, 64}
	binary.BigEndian.PutUint16(h[4:], uint16(8+length))
	h = slices.Concat(h, from.AsSlice(), to.AsSlice(), []byte{unix.IPPROTO_UDP, 0})
	h = binary.BigEndian.AppendUint16(h, at|more)
	return binary.BigEndian.AppendUint32(h, id)
}

func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// sendWhole sends a packet with its IP header.
func sendWhole(to netip.Addr, packet []byte) error {
	family, sockaddr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: to.As16()})
	if to.Is4() {
		family, sockaddr = unix.AF_INET, &unix.SockaddrInet4{Addr: to.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, packet, 0, sockaddr)
}
