package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
)

// resetClient tells a client that its connection's other end is gone. What it
// acknowledged last is what it expects next, and makes the reset count. One
// that gets lost does no harm: the next packet of the client is answered, too,
// by the programs or by the backend that then gets it.
func (d *Dataplane) resetClient(id flowID, f bpf.OrchFlow) {
	if id.proto == unix.IPPROTO_TCP && f.Flags&bpf.OrchSeenSEEN_ESTABLISHED != 0 && !isOver(f.Flags) {
		d.resets.send(id.dest, id.client, f.Ack)
	}
}

// resetSocket sends TCP resets: whole packets, as they come from an address
// that a client used, which need not be the node's. A part that is negative is
// not there.
type resetSocket struct {
	v4, v6 int
}

// openResets opens the socket in the node's network namespace.
func openResets() (resetSocket, error) {
	const how = unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	v4, err := unix.Socket(unix.AF_INET, how, unix.IPPROTO_RAW)
	if err != nil {
		return resetSocket{-1, -1}, fmt.Errorf("open a socket for TCP resets: %w", err)
	}
	v6, err := unix.Socket(unix.AF_INET6, how, unix.IPPROTO_RAW)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return resetSocket{v4, -1}, fmt.Errorf("open a socket for TCP resets by IPv6: %w", err)
	}
	return resetSocket{v4, v6}, nil
}

func (s resetSocket) close() error {
	var err error
	for _, fd := range []int{s.v4, s.v6} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}

// send sends a reset with a sequence number in network order.
func (s resetSocket) send(from, to netip.AddrPort, seq uint32) {
	if to.Addr().Is4() {
		_ = unix.Sendto(s.v4, resetPacket(from, to, seq), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()})
	} else if s.v6 >= 0 {
		_ = unix.Sendto(s.v6, resetPacket(from, to, seq), 0, &unix.SockaddrInet6{Addr: to.Addr().As16()})
	}
}

// resetPacket has what is left of an IPv4 header to the kernel.
func resetPacket(from, to netip.AddrPort, seq uint32) []byte {
	const segment, rst = 20, 4
	var p []byte
	if to.Addr().Is4() {
		p = make([]byte, 12, 20+segment)
		p[0], p[8], p[9] = 4<<4|5, 64, unix.IPPROTO_TCP
	} else {
		p = make([]byte, 8, 40+segment)
		p[0], p[5], p[6], p[7] = 6<<4, segment, unix.IPPROTO_TCP, 64
	}
	covered := len(p) // by the checksum: what follows
	p = append(p, from.Addr().AsSlice()...)
	p = append(p, to.Addr().AsSlice()...)
	p = binary.BigEndian.AppendUint16(p, from.Port())
	p = binary.BigEndian.AppendUint16(p, to.Port())
	p = binary.NativeEndian.AppendUint32(p, seq)
	p = append(p, 0, 0, 0, 0, segment/4<<4, rst, 0, 0, 0, 0, 0, 0)

	sum := uint32(unix.IPPROTO_TCP + segment)
	for rest := p[covered:]; len(rest) > 0; rest = rest[2:] {
		sum += uint32(binary.BigEndian.Uint16(rest))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[len(p)-4:], ^uint16(sum>>16+sum))
	return p
}
