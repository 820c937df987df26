package quiet

import (
	"net"
	"net/netip"
	"syscall"
	"unsafe"
)

// PacketConn is a UDP socket of IPv4 that is read and written by direct system calls.
type PacketConn struct {
	*net.UDPConn
	raw syscall.RawConn
}

// ListenPackets opens a socket at an IPv4 address; port 0 takes a free one.
func ListenPackets(at netip.AddrPort) (*PacketConn, error) {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		udp.Close()
		return nil, err
	}
	return &PacketConn{udp, raw}, nil
}

// ReadFromAddrPort waits for a packet and returns its length in bytes, and who sent
// it. What is longer than b is cut.
func (p *PacketConn) ReadFromAddrPort(b []byte) (n int, from netip.AddrPort, err error) {
	var (
		read  uintptr
		errno syscall.Errno
		addr  syscall.RawSockaddrInet4
	)
	err = p.raw.Read(func(fd uintptr) bool {
		size := uint32(syscall.SizeofSockaddrInet4)
		read, errno = direct(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0,
			uintptr(unsafe.Pointer(&addr)), uintptr(unsafe.Pointer(&size)))
		return errno != syscall.EAGAIN
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err != nil {
		return 0, from, explain("read", "udp", err, p.LocalAddr(), nil)
	}
	port := (*[2]byte)(unsafe.Pointer(&addr.Port)) // in network byte order
	return int(read), netip.AddrPortFrom(netip.AddrFrom4(addr.Addr), uint16(port[0])<<8|uint16(port[1])), nil
}

// WriteToAddrPort sends a packet to an IPv4 address.
func (p *PacketConn) WriteToAddrPort(b []byte, to netip.AddrPort) error {
	var errno syscall.Errno
	addr := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Addr: to.Addr().Unmap().As4()}
	port := (*[2]byte)(unsafe.Pointer(&addr.Port)) // in network byte order
	port[0], port[1] = byte(to.Port()>>8), byte(to.Port())
	err := p.raw.Write(func(fd uintptr) bool {
		_, errno = direct(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), 0,
			uintptr(unsafe.Pointer(&addr)), syscall.SizeofSockaddrInet4)
		return errno != syscall.EAGAIN
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return explain("write", "udp", err, p.LocalAddr(), net.UDPAddrFromAddrPort(to))
}
