package quiet

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

func listenPackets(t *testing.T) *PacketConn {
	t.Helper()
	p, err := ListenPackets(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func addrOf(p *PacketConn) netip.AddrPort { return p.LocalAddr().(*net.UDPAddr).AddrPort() }

// Packets arrive as they were sent, and from whom.
func TestPackets(t *testing.T) {
	a, b := listenPackets(t), listenPackets(t)
	buf := make([]byte, 1<<16)
	for _, size := range []int{0, 1, 1400, 65507} {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		if err := a.WriteToAddrPort(sent, addrOf(b)); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		n, from, err := b.ReadFromAddrPort(buf)
		if err != nil || from != addrOf(a) || !bytes.Equal(buf[:n], sent) {
			t.Errorf("%d bytes of %d from %v, want %v; %v", n, size, from, addrOf(a), err)
		}
	}
	_ = a.WriteToAddrPort([]byte("long"), addrOf(b))
	if n, _, err := b.ReadFromAddrPort(buf[:2]); n != 2 || err != nil {
		t.Errorf("a packet that is cut: %d bytes, %v", n, err)
	}
}

// One that waits does so until there is a packet, or the end; errors are those of
// package net.
func TestPacketErrors(t *testing.T) {
	a, b := listenPackets(t), listenPackets(t)
	type packet struct {
		n   int
		err error
	}
	got := make(chan packet)
	read := func() {
		n, _, err := b.ReadFromAddrPort(make([]byte, 10))
		got <- packet{n, err}
	}
	go read()
	_ = a.WriteToAddrPort([]byte("abc"), addrOf(b))
	if p := <-got; p.n != 3 || p.err != nil {
		t.Errorf("%d bytes, %v", p.n, p.err)
	}
	go read()
	b.Close()
	if p := <-got; !errors.Is(p.err, net.ErrClosed) {
		t.Errorf("a read of a socket that is closed: %v", p.err)
	}
	if err := b.WriteToAddrPort(nil, addrOf(a)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write to a socket that is closed: %v", err)
	}
	var op *net.OpError
	err := a.WriteToAddrPort(make([]byte, 1<<16), addrOf(a))
	if !errors.Is(err, syscall.EMSGSIZE) || !errors.As(err, &op) {
		t.Errorf("a packet that is too long: %v", err)
	}
	if _, err := ListenPackets(addrOf(a)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that is taken: %v", err)
	}
}
