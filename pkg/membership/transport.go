package membership

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/orch-dev/orch/pkg/quiet"
)

// transport carries gossip by UDP and TCP, as memberlist's own does, at less cost
// where little is said: that takes 64 KiB of memory for each packet, and system calls
// that may wait.
type transport struct {
	udp     *quiet.PacketConn
	tcp     net.Listener
	packets chan *memberlist.Packet
	streams chan net.Conn
	log     *slog.Logger

	closing  chan struct{}
	close    sync.Once
	inFlight sync.WaitGroup
}

const (
	maxPacket = 64 << 10 // bytes
	// receiveBuffer is room for what comes at once, in bytes, as far as the kernel
	// grants it.
	receiveBuffer = 2 << 20
	// listenTries are for a port that is free for TCP, and must be for UDP.
	listenTries = 10
	acceptPause = 100 * time.Millisecond
)

// listen opens both sockets, on the same port; port 0 takes a free one.
func listen(at netip.AddrPort, log *slog.Logger) (*transport, error) {
	for try := 1; ; try++ {
		t, err := listenOnce(at, log)
		if err == nil || at.Port() != 0 || try == listenTries {
			return t, err
		}
	}
}

func listenOnce(at netip.AddrPort, log *slog.Logger) (*transport, error) {
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	udp, err := quiet.ListenPackets(tcp.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	for size := receiveBuffer; udp.SetReadBuffer(size) != nil && size > maxPacket; {
		size /= 2
	}
	t := &transport{
		udp: udp, tcp: tcp, log: log,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		closing: make(chan struct{}),
	}
	t.inFlight.Go(t.receive)
	t.inFlight.Go(t.accept)
	return t, nil
}

func (t *transport) port() uint16 { return t.tcp.Addr().(*net.TCPAddr).AddrPort().Port() }

// receive hands packets on, until the transport is shut down.
func (t *transport) receive() {
	buf := make([]byte, maxPacket)
	for {
		n, from, err := t.udp.ReadFromAddrPort(buf)
		at := time.Now()
		switch {
		case t.isClosing():
			return
		case err != nil:
			t.log.Debug("gossip: receive", "err", err)
			t.pause()
			continue
		case n == 0:
			continue
		}
		p := &memberlist.Packet{Buf: bytes.Clone(buf[:n]), From: net.UDPAddrFromAddrPort(from), Timestamp: at}
		select {
		case t.packets <- p:
		case <-t.closing:
			return
		}
	}
}

// accept hands connections on, until the transport is shut down.
func (t *transport) accept() {
	for {
		conn, err := t.tcp.Accept()
		switch {
		case t.isClosing():
			if err == nil {
				conn.Close()
			}
			return
		case err != nil:
			t.log.Debug("gossip: accept", "err", err)
			t.pause()
			continue
		}
		select {
		case t.streams <- conn:
		case <-t.closing:
			conn.Close()
			return
		}
	}
}

func (t *transport) isClosing() bool {
	select {
	case <-t.closing:
		return true
	default:
		return false
	}
}

// pause keeps an error that stays from taking a CPU.
func (t *transport) pause() {
	select {
	case <-t.closing:
	case <-time.After(acceptPause):
	}
}

// FinalAdvertiseAddr is the address that the configuration names.
func (t *transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return nil, 0, fmt.Errorf("address for other nodes: %w", err)
	}
	return addr.AsSlice(), port, nil
}

// WriteTo sends a packet, and returns when.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send to %q: %w", addr, err)
	}
	if !to.Addr().Unmap().Is4() {
		return time.Time{}, fmt.Errorf("send to %s: not an IPv4 address", to)
	}
	return time.Now(), t.udp.WriteToAddrPort(b, to)
}

// PacketCh has the packets that arrived.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout connects to another node.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

// StreamCh has the connections that other nodes made.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown closes both sockets. It may be called again.
func (t *transport) Shutdown() error {
	var err error
	t.close.Do(func() {
		close(t.closing)
		err = errors.Join(t.udp.Close(), t.tcp.Close())
		t.inFlight.Wait()
	})
	return err
}
