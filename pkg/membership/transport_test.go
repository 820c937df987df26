package membership

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newTransport(t *testing.T) (*transport, string) {
	t.Helper()
	trans, err := listen(netip.MustParseAddrPort("127.0.0.1:0"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = trans.Shutdown() })
	return trans, trans.udp.LocalAddr().String()
}

// Packets come with their sender, each in memory of its own: memberlist keeps some.
func TestTransportPackets(t *testing.T) {
	a, from := newTransport(t)
	b, to := newTransport(t)
	for _, text := range []string{"", "first", "second"} { // an empty one is none
		if _, err := a.WriteTo([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	first, second := <-b.PacketCh(), <-b.PacketCh()
	if string(first.Buf) != "first" || string(second.Buf) != "second" {
		t.Errorf("%q and %q", first.Buf, second.Buf)
	}
	if first.From.String() != from || first.Timestamp.After(second.Timestamp) {
		t.Errorf("from %v at %v, the next at %v", first.From, first.Timestamp, second.Timestamp)
	}
	for _, bad := range []string{"", "nowhere", "[::1]:7946", "127.0.0.1:port"} {
		if _, err := a.WriteTo([]byte("x"), bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("to %q: %v", bad, err)
		}
	}
}

// Connections are to the same port, and what nobody takes ends with the transport.
func TestTransportStreams(t *testing.T) {
	trans, addr := newTransport(t)
	conn, err := trans.DialTimeout(addr, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted := <-trans.StreamCh()
	if accepted.RemoteAddr().String() != conn.LocalAddr().String() {
		t.Errorf("from %v, want %v", accepted.RemoteAddr(), conn.LocalAddr())
	}
	accepted.Close()
	if _, err := listen(netip.MustParseAddrPort(addr), trans.log); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second one on the port: %v", err)
	}

	unwanted, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer unwanted.Close()
	if _, err := trans.WriteTo([]byte("unwanted"), addr); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := trans.Shutdown(); err != nil {
			t.Error(err)
		}
	}
	_ = unwanted.SetReadDeadline(time.Now().Add(time.Minute))
	var late net.Error
	if _, err := unwanted.Read(make([]byte, 1)); err == nil || errors.As(err, &late) && late.Timeout() {
		t.Errorf("a connection that nobody took: %v", err)
	}
}
