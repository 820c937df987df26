package netdev

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestCountOpen(t *testing.T) {
	far := netip.MustParseAddr("192.0.2.9")
	listen := connection{state: tcpListen, port: 80}
	conn := func(change func(*connection)) connection {
		c := connection{state: tcpEstablished, port: 80, peer: far, sent: time.Minute, heard: time.Minute + time.Second, spoken: true}
		change(&c)
		return c
	}
	tests := []struct {
		name string
		conn connection
		want int
	}{
		{"kept for later", conn(func(*connection) {}), 0},
		{"answered a moment ago", conn(func(c *connection) { c.sent = time.Second }), 1},
		{"the client waits for an answer", conn(func(c *connection) { c.heard = time.Minute - time.Millisecond }), 1},
		{"a request was not read", conn(func(c *connection) { c.unread = 1 }), 1},
		{"an answer is on its way", conn(func(c *connection) { c.unack = 1 }), 1},
		{"also after the process has closed it", conn(func(c *connection) { c.state, c.unack = tcpFinWait1, 1 }), 1},
		{"connected for later", conn(func(c *connection) { c.spoken, c.heard = false, time.Minute }), 0},
		{"connecting", conn(func(c *connection) { c.state = tcpSynReceived }), 1},
		{"the client has ended its half and waits", conn(func(c *connection) { c.state, c.heard = tcpCloseWait, time.Second }), 1},
		{"a health check", conn(func(c *connection) { c.peer, c.unread = netip.MustParseAddr("127.0.0.1"), 1 }), 0},
		{"opened by the task itself", conn(func(c *connection) { c.port, c.unread = 41000, 1 }), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := countOpen([]connection{tt.conn, listen}); got != tt.want {
				t.Errorf("%d open, want %d", got, tt.want)
			}
		})
	}
}

// The kernel says of real sockets what is expected of it.
func TestOpenConnections(t *testing.T) {
	for _, listenAddr := range []string{"0.0.0.0:0", "[::]:0"} {
		server, err := net.Listen("tcp", listenAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		addr := server.Addr().(*net.TCPAddr)
		_, port, _ := net.SplitHostPort(addr.String())
		client, err := net.Dial("tcp4", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		accepted, err := server.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		find := func() (c connection) {
			for _, family := range []uint8{2, 10} {
				conns, err := connections(family, openStates)
				if err != nil {
					t.Fatal(err)
				}
				for _, found := range conns {
					if found.state == tcpEstablished && found.port == uint16(addr.Port) {
						c = found
					}
				}
			}
			return c
		}
		deadline := time.Now().Add(5 * time.Second)
		for c := find(); c.unread != 5; c = find() {
			if time.Now().After(deadline) {
				t.Fatalf("on %s: %+v", listenAddr, c)
			}
		}
		if c := find(); c.peer != netip.MustParseAddr("127.0.0.1") || !c.spoken || !c.busy() {
			t.Errorf("on %s: %+v", listenAddr, c)
		}
	}
}

func TestListens(t *testing.T) {
	const here = "/proc/thread-self/ns/net" // of the process it may be one that another test made
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(server.Addr().(*net.TCPAddr).Port)
	listens := func(ports ...uint16) bool {
		t.Helper()
		ok, err := new(Links).Listens(here, ports)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !listens(port) {
		t.Errorf("nobody listens on %d", port)
	}
	if listens(port, 0) {
		t.Error("somebody listens on port 0")
	}
	server.Close()
	if listens(port) {
		t.Errorf("somebody listens on %d, which was closed", port)
	}
}
