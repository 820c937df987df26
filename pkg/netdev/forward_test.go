package netdev

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

func iptables(t *testing.T, ns string, rules ...string) string {
	t.Helper()
	var out string
	in(t, ns, func() error {
		for _, rule := range rules {
			b, err := exec.Command("iptables", strings.Fields(rule)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("iptables %s: %w: %s", rule, err, b)
			}
			out += string(b)
		}
		return nil
	})
	return out
}

// The Docker Engine drops what the node forwards, except for what its chain for
// others lets through.
func TestTasksReachOutsideThroughTheEnginesFirewall(t *testing.T) {
	f := newFabric(t)
	iptables(t, f.node, "-P FORWARD DROP", "-N DOCKER-USER", "-A DOCKER-USER -s 203.0.113.0/24 -j DROP", "-A DOCKER-USER -j RETURN", "-A FORWARD -j DOCKER-USER")
	in(t, f.node, func() error { return f.links.Setup(t.Context()) })
	in(t, f.node, func() error { return f.links.Setup(t.Context()) }) // again: no rule twice
	task := newNS(t)
	f.attach(t, Link{Task: taskA, NetNS: task, Addr: addrA})
	listen(t, f.outside, netip.AddrPortFrom(netip.IPv4Unspecified(), 8000))
	if seen := seenAs(t, task, netip.AddrPortFrom(farAddr, 8000)); seen != nodeAddr.String() {
		t.Errorf("seen as %s, want %s", seen, nodeAddr)
	}
	if list := iptables(t, f.node, "-S DOCKER-USER"); strings.Count(list, "-j ACCEPT") != 2 {
		t.Errorf("rules after two set-ups:\n%s", list)
	}
	in(t, f.node, func() error {
		if chain, blocked, err := ForwardingBlocked(); blocked || err != nil {
			return fmt.Errorf("blocked by %q: %v, %w", chain, blocked, err)
		}
		return f.links.Purge(t.Context())
	})
	if list := iptables(t, f.node, "-S DOCKER-USER"); list != "-N DOCKER-USER\n-A DOCKER-USER -s 203.0.113.0/24 -j DROP\n-A DOCKER-USER -j RETURN\n" {
		t.Errorf("what others put there has changed:\n%s", list)
	}
}

func TestForeignFirewallIsPointedOut(t *testing.T) {
	f := newFabric(t)
	iptables(t, f.node, "-P FORWARD DROP")
	in(t, f.node, func() error {
		chain, blocked, err := ForwardingBlocked()
		if err != nil || !blocked || chain != "filter/FORWARD" {
			return fmt.Errorf("got %q, %v, %v", chain, blocked, err)
		}
		return nil
	})
}
