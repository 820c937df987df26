package netdev

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzConnection looks for what a kernel, of any version, may say of a socket that
// makes a node panic, or that it takes for a peer that the message does not name.
func FuzzConnection(f *testing.F) {
	message := func(family uint8, attrs ...byte) []byte {
		m := make([]byte, diagMessageSize)
		m[0], m[1], m[4] = family, tcpEstablished, 80
		copy(m[24:], []byte{192, 0, 2, 1})
		return append(m, attrs...)
	}
	attr := func(length, kind uint16, value int) []byte {
		a := binary.NativeEndian.AppendUint16(nil, length)
		return append(binary.NativeEndian.AppendUint16(a, kind), make([]byte, value)...)
	}
	f.Add(message(unix.AF_INET))
	f.Add(message(unix.AF_INET6, attr(4+104, diagInfo, 104)...))
	f.Add(message(unix.AF_INET, attr(4+1000, diagInfo, 1000)...)) // of a kernel that says more
	f.Add(message(unix.AF_INET, attr(8, diagInfo, 4)...))         // of one that says less
	f.Add(message(unix.AF_INET, attr(0, diagInfo, 8)...))
	f.Add(message(unix.AF_INET, attr(0xffff, diagInfo, 8)...))
	f.Add(message(unix.AF_INET, attr(4+9, diagInfo, 9)...)) // without its padding
	f.Add(message(unix.AF_INET, 1, 0, 2))
	f.Add(message(0)[:diagMessageSize-1])
	f.Fuzz(func(t *testing.T, m []byte) {
		c, ok := parseConnection(m)
		if !ok {
			return
		}
		if bits := c.peer.BitLen(); bits != 32 && bits != 128 || c.peer.Is4In6() || c.sent < 0 || c.heard < 0 {
			t.Errorf("%x is taken for %+v", m, c)
		}
		if m[0] == unix.AF_INET && c.peer != netip.AddrFrom4([4]byte(m[24:28])) {
			t.Errorf("%x is of %v", m, c.peer)
		}
		countOpen([]connection{c})
	})
}
