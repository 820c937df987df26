package dataplane

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

// A probe is a packet of the overlay, of kind OVERLAY_PROBE (overlay.h), which
// the programs of the node that gets it send back short, to the port that it
// came from, from the address of the node that it names.
const (
	probeKind   = 4
	probeHeader = 8 + 14 // VXLAN and the inner Ethernet header
	probeBytes  = 16     // after it: a cookie, the size, and padding
	outerHeader = 20 + 8 // IPv4 and UDP
	probeFloor  = 128    // bytes; a path that does not pass this passes nothing

	probeTries = 3
	dsrTries   = 6
	probeWait  = 150 * time.Millisecond // for answers, after each try
	probeGrid  = 24                     // sizes tried side by side
)

// Probe finds out how large a packet of the overlay reaches the data plane of
// the node at address to, in one piece, by sending some with don't-fragment
// set. It tries mtu first, bytes of the outer IP packet.
func Probe(ctx context.Context, from, to netip.Addr, mtu int) (api.OverlayProbe, error) {
	result := api.OverlayProbe{Tried: mtu}
	conn, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
		net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, api.OverlayPort)))
	if err != nil {
		return result, fmt.Errorf("probe %s: %w", to, err)
	}
	defer conn.Close()
	if err := dontFragment(conn); err != nil {
		return result, fmt.Errorf("probe %s: %w", to, err)
	}
	p := &prober{conn: conn, name: to, cookie: uint64(time.Now().UnixNano())}
	arrived := p.round(ctx, []int{mtu, probeFloor})
	switch {
	case arrived[mtu]:
		result.Largest = mtu
		return result, ctx.Err()
	case !arrived[probeFloor]:
		return result, ctx.Err()
	}
	below, above := probeFloor, mtu // what passes, what does not
	for above-below > 1 && ctx.Err() == nil {
		sizes := between(below, above)
		arrived := p.round(ctx, sizes)
		for _, size := range sizes {
			if arrived[size] {
				below = size
			}
		}
		for _, size := range sizes {
			if size > below {
				above = size
				break
			}
		}
	}
	result.Largest = below
	return result, ctx.Err()
}

// ProbeDSR asks the data plane of the node at address to for an answer from the
// address of another node, which is how replies go with direct server return. It
// returns the address that the answer came from: as, where the network lets it
// pass; to, if that node does not know of such probes; none, if nothing arrived.
func ProbeDSR(ctx context.Context, from, to, as netip.Addr) (netip.Addr, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("probe %s: %w", to, err)
	}
	defer conn.Close()
	p := &prober{conn: conn, name: as, cookie: uint64(time.Now().UnixNano())}
	probe, buf := p.packet(probeFloor), make([]byte, 2048)
	for try := 0; try < dsrTries && ctx.Err() == nil; try++ {
		// It may be refused for an ICMP error about the one before.
		_, _ = conn.WriteToUDPAddrPort(probe, netip.AddrPortFrom(to, api.OverlayPort))
		deadline := time.Now().Add(probeWait)
		if err := conn.SetReadDeadline(deadline); err != nil {
			return netip.Addr{}, fmt.Errorf("probe %s: %w", to, err)
		}
		for time.Now().Before(deadline) {
			n, source, err := conn.ReadFromUDPAddrPort(buf)
			if err == nil && p.answers(buf[:n]) {
				return source.Addr().Unmap(), nil
			}
		}
	}
	return netip.Addr{}, ctx.Err()
}

// between spreads up to probeGrid sizes evenly, ascending, without the ends.
func between(below, above int) []int {
	n := min(probeGrid, above-below-1)
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = below + (above-below)*(i+1)/(n+1)
	}
	return sizes
}

// dontFragment makes a socket send with DF whatever it has heard of the path,
// and without a checksum, as the overlay does.
func dontFragment(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		if optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE); optErr == nil {
			optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
		}
	})
	if err != nil {
		return err
	}
	return optErr
}

type prober struct {
	conn   *net.UDPConn
	name   netip.Addr // of the node whose address is to answer
	cookie uint64
}

// round sends packets of these sizes and says which were answered.
func (p *prober) round(ctx context.Context, sizes []int) map[int]bool {
	arrived := make(map[int]bool)
	for try := 0; try < probeTries && len(arrived) < len(sizes) && ctx.Err() == nil; try++ {
		for _, size := range sizes {
			if !arrived[size] {
				_, _ = p.conn.Write(p.packet(size)) // too large, or an ICMP error about another
			}
		}
		p.collect(arrived, len(sizes))
	}
	return arrived
}

// collect reads answers until want sizes have been seen or it has waited enough.
func (p *prober) collect(arrived map[int]bool, want int) {
	deadline := time.Now().Add(probeWait)
	if err := p.conn.SetReadDeadline(deadline); err != nil {
		return
	}
	buf := make([]byte, 2048)
	for len(arrived) < want && time.Now().Before(deadline) {
		n, err := p.conn.Read(buf) // an error may be about one packet only
		if err == nil && p.answers(buf[:n]) {
			arrived[int(binary.BigEndian.Uint32(buf[probeHeader+8:]))] = true
		}
	}
}

// answers reports whether a datagram is the answer to one of the probes.
func (p *prober) answers(datagram []byte) bool {
	return len(datagram) >= probeHeader+probeBytes && binary.BigEndian.Uint64(datagram[probeHeader:]) == p.cookie
}

// packet is the UDP payload of a probe whose IP packet has a size.
func (p *prober) packet(size int) []byte {
	b := make([]byte, size-outerHeader)
	b[0], b[4] = 0x08, probeKind // the VNI is valid; its first byte is the kind
	mac := api.EndpointMAC(p.name)
	copy(b[8:], mac[:])
	binary.BigEndian.PutUint16(b[20:], unix.ETH_P_IP)
	binary.BigEndian.PutUint64(b[probeHeader:], p.cookie)
	binary.BigEndian.PutUint32(b[probeHeader+8:], uint32(size))
	return b
}
