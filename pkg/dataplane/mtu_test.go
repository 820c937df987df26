package dataplane_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
)

// Underlays whose frames are small, and such as XDP has in several buffers.
func TestUnderlayMTU(t *testing.T) {
	for _, mtu := range []int{1280, 1450, 9000} {
		for _, mode := range []dataplane.Mode{dataplane.ModeXDP, dataplane.ModeTC} {
			t.Run(fmt.Sprint(mode, mtu), func(t *testing.T) {
				c := newClusterOf(t, mode, mtu)
				if got := c.nodes[0].dp.Describe(); strings.Contains(got, "xdp native on eth0") != (mode == dataplane.ModeXDP) {
					t.Error(got)
				}
				for i, w := range c.web[:2] { // on the ingress node, and on another
					c.apply(c.backends(i + 1)...)
					c.client.moves(c.nodes[0].published(), mtu)
					c.caller.moves(virtual(appPort), mtu)
					c.caller.moves(w.app(), mtu)
					if mtu-api.OverlayOverhead >= minMTU6 {
						c.client.moves(c.nodes[0].published6(), mtu)
						c.caller.moves(netip.AddrPortFrom(inner6(w.addr), appPort), mtu)
					}
				}
				for i, n := range c.nodes {
					if got := n.stats().Drops["rewrite"].Packets; got != 0 {
						t.Errorf("n%d could not rewrite %d packets", i+1, got)
					}
				}
			})
		}
	}
}

// moves sends bytes both ways, and datagrams up to one of several fragments.
func (s *space) moves(to netip.AddrPort, mtu int) {
	s.t.Helper()
	const bytes = 4 << 20
	if err := s.download(to, bytes); err != nil {
		s.t.Errorf("%s from %s: %v", s.name, to, err)
	}
	if err := s.upload(to, bytes); err != nil {
		s.t.Errorf("%s to %s: %v", s.name, to, err)
	}
	u, err := s.datagrams(to)
	if err != nil {
		s.t.Fatal(err)
	}
	defer u.Close()
	for _, length := range []int{mtu - api.OverlayOverhead - 28, mtu - 28, 20000} {
		if _, _, err := exchange(u, length); err != nil {
			s.t.Errorf("%s to %s: %v", s.name, to, err)
		}
	}
}

// A probe finds the size that passes between two nodes, each direction by
// itself, and that nothing does.
func TestProbe(t *testing.T) {
	for _, mode := range []dataplane.Mode{dataplane.ModeXDP, dataplane.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			c := newCluster(t, mode)
			c.apply(c.backends(1, 2, 3)...)
			a, b := c.nodes[0], c.nodes[1]
			a.wantProbe(b, 1500)
			b.wantProbe(a, 1500)
			if got := b.stats().Verdicts["answered-probe"].Packets; got == 0 {
				t.Error("the answer was not counted")
			}

			// The switch's way to b takes less.
			sw := &space{fabric: c.fabric, name: c.prefix + "-sw"}
			sw.ip("link set n2 mtu 1400\n")
			a.wantProbe(b, 1400)
			sw.ip("link set n2 mtu 1500\n")

			sw.ip("link set n2 down\n")
			a.wantProbe(b, 0)
			sw.ip("link set n2 up\n")

			// No member any more, a is not answered.
			plan := c.plan(b)
			plan.Members = plan.Members[1:]
			b.apply(plan)
			a.wantProbe(b, 0)
		})
	}
}

func (n *node) wantProbe(to *node, largest int) {
	n.t.Helper()
	var got api.OverlayProbe
	n.must(func() (err error) {
		got, err = dataplane.Probe(n.t.Context(), n.addr, to.addr, 1500)
		return err
	})
	if want := (api.OverlayProbe{Tried: 1500, Largest: largest}); got != want {
		n.t.Errorf("%s to %s: %+v, want %+v; verdicts there %v", n.name, to.name, got, want, nonZero(to))
	}
}

// A device without native XDP, as a bridge has none: auto says why it is not
// taken, and xdp refuses and says what to do.
func TestNoNativeXDP(t *testing.T) {
	f := newFabric(t, dataplane.ModeTC, 1500)
	for _, mtu := range []int{1500, 9000} {
		dev := fmt.Sprint("plain", mtu)
		f.client.ip(fmt.Sprintf("link add %s mtu %d type bridge\nlink set %s up\n", dev, mtu, dev))
		for _, mode := range []dataplane.Mode{dataplane.ModeAuto, dataplane.ModeXDP} {
			n := &node{space: f.client, pins: fmt.Sprintf("/sys/fs/bpf/%s-%s-%s", f.prefix, dev, mode)}
			err := n.do(func() (err error) {
				n.dp, err = dataplane.Open(dataplane.Config{PinDir: n.pins, Uplink: dev, Mode: mode, MaxFlows: 1024, MaxSessions: 1024})
				return err
			})
			said := fmt.Sprint(err)
			if err == nil {
				said = n.attached("uplink_xdp", dev).Why
			}
			n.purge()
			want := map[dataplane.Mode]string{dataplane.ModeAuto: "no native XDP on " + dev + " with the driver bridge: ", dataplane.ModeXDP: "use --datapath auto or tc"}[mode]
			if (err == nil) != (mode == dataplane.ModeAuto) || !strings.Contains(said, want) {
				t.Errorf("%s, %s: %s, want it to have %q", dev, mode, said, want)
			}
			if mtu > 3000 && !strings.Contains(said, "MTU of 9000") {
				t.Errorf("%s, %s: %s", dev, mode, said)
			}
			t.Log(said)
		}
	}
}

// Nodes find out whether the network lets pass what one sends from another's
// address: what a switch drops that guards sources, and what the receiver does that
// would not send to that address the same way.
func TestProbeDSR(t *testing.T) {
	for _, mode := range []dataplane.Mode{dataplane.ModeXDP, dataplane.ModeTC} {
		t.Run(string(mode), func(t *testing.T) {
			c := newCluster(t, mode)
			c.apply(c.backends(1, 2, 3)...)
			a, b, other := c.nodes[0], c.nodes[1], c.nodes[2]
			a.wantProbeDSR(b, other, other.addr)

			if _, err := exec.LookPath("nft"); err != nil {
				t.Skip("an emulated machine has no nft")
			}
			sw := &space{fabric: c.fabric, name: c.prefix + "-sw"}
			sw.nft(fmt.Sprintf("table netdev guard { chain n2 { type filter hook ingress device n2 priority 0; ip saddr != %s drop; }; }", b.addr))
			a.wantProbeDSR(b, other, netip.Addr{})
			a.wantProbeDSR(other, b, b.addr)
			a.wantProbe(b, 1500)
			sw.nft("delete table netdev guard")
			a.wantProbeDSR(b, other, other.addr)

			// a would send to the third node another way.
			a.ip(fmt.Sprintf("link add aside type veth peer name beside\nlink set aside up\nlink set beside up\nroute add %s/32 dev aside\n", other.addr))
			a.must(func() error { return writeSysctl("ipv4/conf/all/rp_filter", "1") })
			a.wantProbeDSR(b, other, netip.Addr{})
			a.must(func() error { return writeSysctl("ipv4/conf/all/rp_filter", "2") })
			a.wantProbeDSR(b, other, other.addr)
			a.ip("link del aside\n")

			// Who is no member is nobody whose address is taken.
			a.wantProbeDSR(b, &node{space: c.client, addr: clientAddr}, b.addr)
		})
	}
}

func (n *node) wantProbeDSR(to, as *node, want netip.Addr) {
	n.t.Helper()
	var got netip.Addr
	n.must(func() (err error) {
		got, err = dataplane.ProbeDSR(n.t.Context(), n.addr, to.addr, as.addr)
		return err
	})
	if got != want {
		n.t.Errorf("%s asks %s to answer as %s: an answer from %v, want %v; verdicts there %v", n.name, to.name, as.name, got, want, nonZero(to))
	}
}

func (s *space) nft(ruleset string) {
	s.t.Helper()
	run(s.t, "ip", "netns", "exec", s.name, "nft", ruleset)
}
