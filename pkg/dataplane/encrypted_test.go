package dataplane_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/wireguard"
)

// sealed is a cluster whose network 1 is encrypted.
type sealed struct {
	*cluster
	tunnels map[*node]*wireguard.Tunnels
	epochs  api.TunnelPlan
	keys    map[*node][]api.TunnelKey // as the nodes have told them to all
}

func newSealed(t *testing.T, c *cluster) *sealed {
	s := &sealed{cluster: c, tunnels: make(map[*node]*wireguard.Tunnels), keys: make(map[*node][]api.TunnelKey)}
	for _, n := range c.nodes {
		s.tunnels[n] = wireguard.New("eth0", "test")
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			if err := n.do(s.tunnels[n].Purge); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

// sealedPlan is the node's plan with its devices, which are made to be as it says.
func (s *sealed) sealedPlan(n *node, backends ...api.Backend) api.NetworkPlan {
	s.t.Helper()
	plan := s.plan(n, backends...)
	plan.Tunnels = s.epochs
	for i, m := range s.nodes {
		plan.Members[i].Keys = s.keys[m]
	}
	for i := range plan.Endpoints {
		plan.Endpoints[i].Encrypted = plan.Endpoints[i].Networks[0] == 1
	}
	n.must(func() (err error) {
		plan.Tunnels.Devices, err = s.tunnels[n].Apply(plan)
		return err
	})
	return plan
}

// seal gives every node the plan with these backends.
func (s *sealed) seal(backends ...api.Backend) {
	s.t.Helper()
	for _, n := range s.nodes {
		n.apply(s.sealedPlan(n, backends...))
	}
}

// tell has all nodes know the others' keys.
func (s *sealed) tell(backends ...api.Backend) {
	s.t.Helper()
	for _, n := range s.nodes {
		n.must(func() (err error) {
			s.keys[n], err = s.tunnels[n].Keys()
			return err
		})
	}
	s.seal(backends...)
}

// capture counts the frames with a text in them that come to a node.
type capture struct {
	*node
	count, fences atomic.Int64
	cancel        context.CancelFunc
	done          chan struct{}
}

// fence is in frames that are sent to know that the capture has seen those before.
const fence = "all before this was seen"

func (n *node) capture(text string) *capture {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &capture{node: n, cancel: cancel, done: make(chan struct{})}
	fd, uplink := -1, n.index(n.space, "eth0")
	n.must(func() (err error) {
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
		if err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: uplink}); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	})
	go func() {
		defer close(c.done)
		defer unix.Close(fd)
		frame := make([]byte, 1<<16)
		for ctx.Err() == nil {
			size, _, err := unix.Recvfrom(fd, frame, 0)
			if err != nil {
				continue
			}
			if bytes.Contains(frame[:size], []byte(text)) {
				c.count.Add(1)
			}
			if bytes.Contains(frame[:size], []byte(fence)) {
				c.fences.Add(1)
			}
		}
	}()
	return c
}

// seen is how many frames with the text have come, all before from's call counted.
func (c *capture) seen(from *node) int64 {
	c.t.Helper()
	before := c.fences.Load()
	for deadline := time.Now().Add(patience); c.fences.Load() == before; time.Sleep(10 * time.Millisecond) {
		if err := from.sendUDP(netip.AddrPortFrom(c.addr, 9), []byte(fence)); err != nil {
			c.t.Fatal(err)
		}
		if time.Now().After(deadline) {
			c.t.Fatal("the capture sees nothing at all")
		}
	}
	return c.count.Load()
}

func (c *capture) stop() { c.cancel(); <-c.done }

// direct is VXLAN as one task's node sends it to another's.
func direct(from, to *task) []byte {
	frame := make([]byte, 8+14+20+8+4)
	frame[0], frame[4] = 0x08, 3 // kind DIRECT
	mac := api.EndpointMAC(to.addr)
	copy(frame[8:], mac[:])
	frame[20] = 0x08 // IPv4
	ip := frame[22:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], 32)
	source, dest := from.addr.As4(), to.addr.As4()
	copy(ip[12:], source[:])
	copy(ip[16:], dest[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(ip[22:], appPort)
	binary.BigEndian.PutUint16(ip[24:], 12)
	return frame
}

// drops is how often a node has dropped for a reason.
func (n *node) drops(reason string) uint64 { return n.stats().Drops[reason].Packets }

// dropsOne expects a node to drop for a reason what send sends.
func (n *node) dropsOne(reason string, send func()) {
	n.t.Helper()
	before := n.drops(reason)
	send()
	for deadline := time.Now().Add(patience); n.drops(reason) == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Errorf("%s dropped nothing as %q: %v", n.name, reason, nonZero(n))
			return
		}
	}
}

// Tasks on an encrypted network: what goes between nodes can be read by nobody
// there, and what did not come encrypted is not taken.
func testEncrypted(t *testing.T, c *cluster) {
	if lacks := wireguard.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	defer c.apply(c.backends(1, 2, 3)...)
	const planted = "what nobody on the way may read"
	n1, n2, web2 := c.nodes[0], c.nodes[1], c.web[1]
	says := func(k *space, to netip.AddrPort) {
		t.Helper()
		conn, err := k.dial(to)
		if err != nil {
			t.Fatalf("%s: %v; verdicts %v and %v", to, err, nonZero(n1), nonZero(n2))
		}
		defer conn.Close()
		if got, err := ask(conn, "echo "+planted); err != nil || got != planted {
			t.Fatalf("%s: %q, %v; verdicts %v and %v", to, got, err, nonZero(n1), nonZero(n2))
		}
	}
	wire := n2.capture(planted)
	defer wire.stop()
	c.apply(c.backends(2)...)
	says(c.caller.space, web2.app())
	if wire.seen(n1) == 0 {
		t.Fatal("the capture sees nothing of what is not encrypted")
	}

	s := newSealed(t, c)
	s.epochs = api.TunnelPlan{Epochs: []uint64{1}, Send: 1}
	s.seal(c.backends(2)...)
	c.caller.refused(web2.app(), syscall.EHOSTUNREACH) // nobody knows a key yet
	n1.wantDrop("not-encrypted")
	s.tell(c.backends(2)...)
	open := wire.seen(n1)
	says(c.caller.space, web2.app())
	says(c.caller.space, virtual(appPort))
	says(c.caller.space, n2.published())
	c.caller.asks(virtual(appPort), "web2", c.caller.addr)
	for _, to := range []netip.AddrPort{web2.app(), netip.AddrPortFrom(inner6(web2.addr), appPort)} {
		if err := c.caller.download(to, 1<<20); err != nil {
			t.Errorf("%s: %v", to, err)
		}
		if err := c.caller.upload(to, 1<<20); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	if got := wire.seen(n1) - open; got != 0 {
		t.Errorf("%d frames on the underlay have the text in them", got)
	}
	// Clients come as they come; from the node that they call on, it is encrypted.
	name, client, err := c.client.who(n1.published())
	if err != nil || name != "web2" || client.Addr() != clientAddr {
		t.Errorf("from outside: %q sees %s, %v; verdicts %v and %v", name, client, err, nonZero(n1), nonZero(n2))
	}

	overlay := netip.AddrPortFrom(n2.addr, api.OverlayPort)
	n2.dropsOne("in-clear", func() {
		if err := n1.sendUDP(overlay, direct(c.caller, web2)); err != nil {
			t.Error(err)
		}
	})
	t.Run("only members", func(t *testing.T) { s.testOnlyMembers(t) })
	t.Run("keys are replaced", func(t *testing.T) { s.testReplaceKeys(t) })

	// Without the device nothing leaves, and nothing leaves in the clear.
	open = wire.seen(n1)
	n1.ip("link del orch-wg0\n")
	if conn, err := c.caller.dialFrom(netip.AddrPort{}, web2.app(), time.Second); err == nil {
		conn.Close()
		t.Error("connected though nothing encrypts")
	}
	plan := c.plan(n1, c.backends(2)...)
	for i := range plan.Endpoints {
		plan.Endpoints[i].Encrypted = true
	}
	n1.apply(plan)
	c.caller.refused(web2.app(), syscall.EHOSTUNREACH)
	if got := wire.seen(n1) - open; got != 0 {
		t.Errorf("%d frames on the underlay have the text in them", got)
	}
	// With another it is as before, once the others know its key.
	s.tell(c.backends(2)...)
	s.tell(c.backends(2)...)
	says(c.caller.space, web2.app())
}

// testOnlyMembers has a node that is no member any more, but still has keys.
func (s *sealed) testOnlyMembers(t *testing.T) {
	n2 := s.nodes[1]
	plan := s.sealedPlan(n2, s.backends(2)...)
	plan.Members = plan.Members[:2]
	n2.apply(plan)
	defer s.seal(s.backends(2)...)
	n2.dropsOne("not-member", func() {
		if conn, err := s.web[2].dialFrom(netip.AddrPort{}, s.web[1].app(), time.Second); err == nil {
			conn.Close()
			t.Error("connected from a node that is no member")
		}
	})
}

// testReplaceKeys goes from one key to the next, in the steps that a cluster
// takes, with a datagram on its way at every moment.
func (s *sealed) testReplaceKeys(t *testing.T) {
	u, err := s.caller.datagrams(s.web[1].app())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var sent, answered atomic.Int64
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			select {
			case <-stop:
				return
			default:
			}
			sent.Add(1)
			fmt.Fprint(u, "how are you")
			u.SetReadDeadline(time.Now().Add(patience))
			if _, err := u.Read(buf); err == nil {
				answered.Add(1)
			} else if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
				return
			}
		}
	}()
	some := func() {
		t.Helper()
		for begin, deadline := answered.Load(), time.Now().Add(2*patience); answered.Load() < begin+20; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no answers with %+v; verdicts %v and %v", s.epochs, nonZero(s.nodes[0]), nonZero(s.nodes[1]))
			}
		}
	}
	some()
	for _, step := range []api.TunnelPlan{
		{Epochs: []uint64{1, 2}, Send: 1}, {Epochs: []uint64{1, 2}, Send: 2}, {Epochs: []uint64{2}, Send: 2},
	} {
		s.epochs = step
		s.seal(s.backends(2)...)
		s.tell(s.backends(2)...)
		some()
	}
	close(stop)
	<-done
	if sent.Load() != answered.Load() {
		t.Errorf("%d of %d datagrams were answered", answered.Load(), sent.Load())
	}
	for _, n := range s.nodes {
		if len(s.keys[n]) != 1 || s.keys[n][0].Epoch != 2 {
			t.Errorf("%s has the keys %v", n.name, s.keys[n])
		}
	}
}
