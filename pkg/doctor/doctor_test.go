package doctor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// healthy is a node with nothing to complain of, and what it finds of one other.
func healthy() *api.NodeFacts {
	return &api.NodeFacts{
		Info:     api.NodeInfo{Kernel: "6.12.0", EngineVersion: "29.0", ElectionTimeout: 150 * time.Millisecond},
		Features: []api.Feature{{Name: "bpf_redirect_peer", Have: true, Required: true, Without: "nothing"}, {Name: "TCX", Have: true}},
		Attachments: []api.Attachment{
			{Device: "eth0", Program: "uplink_tc", How: "tcx", Why: "this kernel has it"},
			{Device: "eth0", Program: "uplink_xdp", How: "none", Why: "asked for by --datapath tc"},
			{Device: "lo", Program: "loopback", How: "tcx"},
			{Device: "orc1", Program: "task", How: "tcx"},
			{Device: "orc2", Program: "task", How: "tcx"},
		},
		PinDir: "/sys/fs/bpf/orch", PinsInBPFFS: true,
		Uplink: "eth0", DefaultDevice: "eth0", UplinkMTU: 1500, TaskLinks: []api.TaskLink{{Device: "orc1", MTU: 1450}},
		Peers: []api.PeerFacts{{
			Hostname: "n2", Addr: netip.MustParseAddr("10.0.0.2"), APIPort: 2377, GossipPort: 7946,
			Overlay: api.OverlayProbe{Tried: 1500, Largest: 1500},
			DSR:     api.DSRProbe{As: "n3", Source: netip.MustParseAddr("10.0.0.3"), Arrived: true},
		}},
		Forwarding: true, Fsync: 1234 * time.Microsecond,
		Ephemeral: [2]uint16{32768, 60999}, Published: []uint16{8080},
		Clock: &api.ClockDifference{Ahead: -3 * time.Millisecond, Within: time.Millisecond},
	}
}

func judge(f *api.NodeFacts) []Finding {
	return Judge(&api.Answers[api.NodeFacts]{Nodes: []api.Answer[api.NodeFacts]{{Hostname: "n1", Answer: f}}})
}

func TestHealthy(t *testing.T) {
	var got []string
	findings := judge(healthy())
	for _, f := range findings {
		if f.Level != OK || f.Do != "" || f.Node != "n1" {
			t.Errorf("%+v", f)
		}
		got = append(got, f.Check+": "+f.Found)
	}
	want := []string{
		"kernel: 6.12.0 has bpf_redirect_peer, TCX",
		"bpffs: programs and maps are pinned at /sys/fs/bpf/orch",
		"attachments: eth0: uplink_tc by tcx (this kernel has it), no uplink_xdp (asked for by --datapath tc)",
		"attachments: lo: loopback by tcx",
		"attachments: 2 devices of tasks: by tcx",
		"uplink: eth0, by the node's address and by the default route",
		"MTU: 1500 bytes of eth0 reach n2 in one piece",
		"task MTU: 1450, for 1 task",
		"ports: API and gossip of n2 answer",
		"overlay: the data planes of n2 answer on 4789/udp",
		"direct return: what n2 sends from another node's address arrives here; no service has it",
		"forwarding: on, and no firewall drops it",
		"clock: 3ms behind the manager's, give or take 1ms",
		"engine: Docker Engine 29.0 answers",
		"disk: a synchronous write of 4 KB takes 1.23ms",
		"reserved ports: no published port is one that the kernel gives to clients (32768 to 60999)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if Worst(findings) != OK {
		t.Error(Worst(findings))
	}
}

// Each fault is found by its check alone, and named.
func TestFaults(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*api.NodeFacts)
		want  Finding
	}{
		{"no required feature", func(f *api.NodeFacts) { f.Features[0].Have = false },
			Finding{Check: "kernel", Level: Fail, Found: "6.12.0 has no bpf_redirect_peer: nothing", Do: "boot a newer kernel (Linux 5.10 or later)"}},
		{"no optional feature", func(f *api.NodeFacts) { f.Features[1] = api.Feature{Name: "TCX", Without: "clsact"} },
			Finding{Check: "kernel", Level: Warn, Found: "6.12.0 has no TCX: clsact", Do: "nothing, or boot a newer kernel"}},
		{"pins elsewhere", func(f *api.NodeFacts) { f.PinsInBPFFS = false },
			Finding{Check: "bpffs", Level: Fail, Found: "/sys/fs/bpf/orch is in no BPF file system: traffic ends with the daemon", Do: "mount it (mount -t bpf bpf /sys/fs/bpf), and restart orch daemon"}},
		{"detached", func(f *api.NodeFacts) { f.Attachments = f.Attachments[1:] },
			Finding{Check: "attachments", Level: Fail, Found: "uplink_tc is not attached", Do: "restart orch daemon, and see its log"}},
		{"filter removed", func(f *api.NodeFacts) { f.Attachments[4].How = "none" },
			Finding{Check: "attachments", Level: Fail, Found: "nothing is attached to orc2: what comes from there goes past the data plane",
				Do: "find out what removes filters of tc there, and restart orch daemon"}},
		{"another default route", func(f *api.NodeFacts) { f.DefaultDevice = "eth1" },
			Finding{Check: "uplink", Level: Warn, Found: "the default route leaves by eth1, the node's address is on eth0: published ports answer on eth0 only, and what tasks send by eth1 keeps their addresses",
				Do: "if clients come in by eth1, and the nodes reach each other by it, restart orch daemon with --advertise-addr and its address"}},
		{"wrong MTU", func(f *api.NodeFacts) { f.Peers[0].Overlay.Largest = 1400 },
			Finding{Check: "MTU", Level: Fail, Found: "eth0 has an MTU of 1500, but of what it sends to n2 only packets of up to 1400 bytes arrive: larger ones are lost",
				Do: "set the MTU of every node's uplink to the smallest size that is told of, or mend the network between these two"}},
		{"old task", func(f *api.NodeFacts) { f.TaskLinks[0].MTU = 8950 },
			Finding{Check: "task MTU", Level: Warn, Found: "larger than the 1450 that fit the tunnel: orc1 (8950); each connection loses its first large packet", Do: "start these tasks again: theirs is set when they start"}},
		{"API closed", func(f *api.NodeFacts) { f.Peers[0].APIError = "refused" },
			Finding{Check: "ports", Level: Fail, Found: "n2 does not answer on 2377/tcp (the API and Raft): refused", Do: "see whether orch daemon runs on n2, and let 2377/tcp through the firewalls between the nodes"}},
		{"gossip closed", func(f *api.NodeFacts) { f.Peers[0].GossipUDPError = "timeout" },
			Finding{Check: "ports", Level: Fail, Found: "n2 does not answer on 7946/udp (gossip): timeout", Do: "see whether orch daemon runs on n2, and let 7946/udp through the firewalls between the nodes"}},
		{"another node gone", func(f *api.NodeFacts) {
			p := &f.Peers[0]
			p.APIError, p.GossipTCPError, p.GossipUDPError, p.Overlay.Largest = "timeout", "timeout", "timeout", 0
		}, Finding{Check: "ports", Level: Fail, Found: "n2 (10.0.0.2) answers on no port: timeout", Do: "see whether the machine runs, and the network between it and this node"}},
		{"overlay closed", func(f *api.NodeFacts) { f.Peers[0].Overlay.Largest = 0 },
			Finding{Check: "overlay", Level: Fail, Found: "the data plane of n2 does not answer on 4789/udp (VXLAN)", Do: "let 4789/udp through the networks between n2 and this node (10.0.0.2), in both directions"}},
		{"direct return is lost", func(f *api.NodeFacts) {
			f.DSR, f.Peers[0].DSR = []string{"blog_web", "shop"}, api.DSRProbe{As: "n3"}
		}, Finding{Check: "direct return", Level: Fail,
			Found: "not here arrives what n2 sends from the address of n3, though what it sends from its own does; blog_web and shop have it",
			Do: "let the network between these nodes pass it (source guards of switches and clouds, rp_filter of routers, firewalls that ask for a connection), " +
				"or go back through the tunnel: `orch cluster update --return tunnel`, x-orch: {return: tunnel}"}},
		{"no forwarding", func(f *api.NodeFacts) { f.Forwarding = false },
			Finding{Check: "forwarding", Level: Fail, Found: "net.ipv4.ip_forward is 0: tasks reach nothing outside the cluster", Do: "sysctl -w net.ipv4.ip_forward=1, and see what turned it off"}},
		{"firewall", func(f *api.NodeFacts) { f.FirewallDrop = "filter/FORWARD" },
			Finding{Check: "forwarding", Level: Warn, Found: "the chain filter/FORWARD drops what the node forwards: tasks reach nothing outside the cluster", Do: "accept the cluster's pool in that chain, or run the Docker Engine's own firewall"}},
		{"clock", func(f *api.NodeFacts) { f.Clock.Ahead = 5 * time.Second },
			Finding{Check: "clock", Level: Warn, Found: "5s ahead of the manager's", Do: "run a time service (chrony, systemd-timesyncd) on every node"}},
		{"engine", func(f *api.NodeFacts) { f.EngineError = "no such file" },
			Finding{Check: "engine", Level: Fail, Found: "the Docker Engine does not answer: no such file", Do: "start it (systemctl start docker), or give its socket with --docker-host"}},
		{"slow disk", func(f *api.NodeFacts) { f.Fsync = 13 * time.Millisecond },
			Finding{Check: "disk", Level: Warn, Found: "a synchronous write of 4 KB took 13ms: the managers may not choose a leader within the election timeout of 150ms",
				Do: "put --state-dir on a faster disk, or find out who else writes there, or `orch cluster update --election-timeout 200ms`"}},
		{"very slow disk", func(f *api.NodeFacts) { f.Fsync, f.Info.ElectionTimeout = time.Second, 0 },
			Finding{Check: "disk", Level: Fail, Found: "a synchronous write of 4 KB took 1s", Do: "put --state-dir on a faster disk, or find out who else writes there"}},
		{"ephemeral port published", func(f *api.NodeFacts) {
			f.Published, f.Reserved = []uint16{8080, 40000, 50001}, [][2]uint16{{50000, 50010}}
		}, Finding{Check: "reserved ports", Level: Warn, Found: "the kernel may use 40000 for connections of the node's own, which the data plane then takes for clients'",
			Do: "sysctl -w net.ipv4.ip_local_reserved_ports=40000, with those that it has already; the daemon's log says why it did not"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			facts := healthy()
			tt.spoil(facts)
			tt.want.Node = "n1"
			var got []Finding
			for _, f := range judge(facts) {
				if f.Level != OK {
					got = append(got, f)
				}
			}
			if diff := cmp.Diff([]Finding{tt.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if Worst(got) != tt.want.Level {
				t.Error(Worst(got))
			}
		})
	}
}

func TestSilentNode(t *testing.T) {
	got := Judge(&api.Answers[api.NodeFacts]{Nodes: []api.Answer[api.NodeFacts]{{Hostname: "n3", Error: "does not answer: refused"}}})
	want := []Finding{{Node: "n3", Check: "node", Level: Fail, Found: "does not answer: refused", Do: "see whether orch daemon runs there, and its log"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// That direct return would not work is no fault where nothing asks for it, and
// what could not be tried is none either.
func TestDirectReturn(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(*api.NodeFacts)
		want  string
	}{
		{"not used", func(f *api.NodeFacts) { f.Peers[0].DSR = api.DSRProbe{As: "n3"} },
			"would not work: not here arrives what n2 sends from the address of n3, though what it sends from its own does; no service has it"},
		{"an older node", func(f *api.NodeFacts) {
			f.DSR, f.Peers[0].DSR = []string{"web"}, api.DSRProbe{As: "n3", Source: f.Peers[0].Addr}
		}, "not known of what n2 would send: an older orch runs there; web has it"},
		{"two nodes", func(f *api.NodeFacts) { f.Peers[0].DSR = api.DSRProbe{} },
			"not tried: that takes two other nodes that answer; no service has it"},
	} {
		facts := healthy()
		tt.spoil(facts)
		for _, f := range judge(facts) {
			if f.Check == "direct return" && (f.Level != OK || f.Found != tt.want) {
				t.Errorf("%s: %+v, want ok and %q", tt.name, f, tt.want)
			}
		}
	}
}

// Without one default route to compare the uplink with there is nothing to warn of.
func TestNoDefaultRoute(t *testing.T) {
	facts := healthy()
	facts.DefaultDevice = ""
	if got := Worst(judge(facts)); got != OK {
		t.Error(got)
	}
}

// A node that is strict itself is the first to look at.
func TestStrictSource(t *testing.T) {
	facts := healthy()
	facts.DSR, facts.StrictSource, facts.Peers[0].DSR = []string{"web"}, true, api.DSRProbe{As: "n3"}
	for _, f := range judge(facts) {
		if f.Check == "direct return" && !strings.Contains(f.Do, "net.ipv4.conf.eth0.rp_filter=2 on this node, which is strict itself") {
			t.Errorf("%+v", f)
		}
	}
}
