package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/doctor"
	"github.com/orch-dev/orch/pkg/lab"
	"github.com/orch-dev/orch/pkg/netdev"
)

// explained are the nodes' answers to an orch net command.
func explained[T any](t *testing.T, c *cluster, node string, args ...string) map[string]T {
	t.Helper()
	answers, err := list[api.Answer[T]](t.Context(), c, node, append([]string{"net"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]T)
	for _, a := range answers {
		if a.Answer == nil {
			t.Fatalf("orch net %s: %s %s", strings.Join(args, " "), a.Hostname, a.Error)
		}
		byName[a.Hostname] = *a.Answer
	}
	return byName
}

// testExplain asks what the kernels do, on any node, of all.
func testExplain(t *testing.T, c *cluster) {
	tasks := c.mustServe(t, web)
	for name, answer := range explained[api.NetFrontends](t, c, "n2", "ls", "--all") {
		seen := 0
		for _, f := range answer.Frontends {
			if f.Service != web {
				continue
			}
			seen++
			var share float64
			for _, b := range f.Backends {
				share += b.Share
				if b.State != api.BackendActive || !strings.HasPrefix(b.Task, web+".") || c.find(b.Node) == nil {
					t.Errorf("%s: %+v", name, b)
				}
			}
			if len(f.Backends) != len(tasks) || share < 0.999 || share > 1.001 {
				t.Errorf("%s: %+v, want %d backends and a whole share", name, f, len(tasks))
			}
		}
		if seen != 2 {
			t.Errorf("%s has %d frontends of %s, want its port and its virtual IP", name, seen, web)
		}
	}

	// A connection goes where the trace says, and is then listed.
	conn, err := c.outside().dial(t.Context(), "tcp", c.addr("n1", blogPort))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{Dial: func(string, string) (net.Conn, error) { return conn, nil }}}
	id, err := get[identity](&client, "http://"+c.addr("n1", blogPort)+"/whoami")
	if err != nil {
		t.Fatal(err)
	}
	from := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	traces := explained[api.NetTrace](t, c, "n3", "trace", from.String(), fmt.Sprint(blogPort))
	if len(traces) != len(c.names()) {
		t.Errorf("%d nodes traced", len(traces))
	}
	trace := traces["n1"]
	for _, task := range tasks {
		if replica(task) == id.Replica && (task.Endpoint.Addr != trace.Backend.Addr() || trace.Task != task.Name() || !trace.Remembered) {
			t.Errorf("%s (%s) answers, and the trace says %+v", task.Name(), task.Endpoint.Addr, trace)
		}
	}
	flows := explained[api.NetFlows](t, c, "n1", "flows", "--service", web, "--client", lab.ClientAddr.String())
	found := false
	for _, f := range flows["n1"].Flows {
		found = found || f.Client == from && f.Backend == trace.Backend && f.Ingress
	}
	if !found {
		t.Errorf("the flow from %s is not listed: %+v", from, flows)
	}
	conn.Close()

	// A stranger's VXLAN is dropped, counted, and shown.
	before := dropped(t, c, "n2", "not-member").Packets
	stranger, err := c.outside().dial(t.Context(), "udp", c.addr("n2", api.OverlayPort))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	const strangers = 7
	for range strangers {
		if _, err := stranger.Write(make([]byte, 50)); err != nil {
			t.Fatal(err)
		}
	}
	await(t, patience, "the drops are counted", func() error {
		drop := dropped(t, c, "n2", "not-member")
		if got := drop.Packets - before; got != strangers {
			return fmt.Errorf("%d drops of %d", got, strangers)
		}
		if drop.Last == nil || drop.Last.Source != netip.MustParseAddrPort(stranger.LocalAddr().String()) || drop.Last.Device != "eth0" {
			return fmt.Errorf("the last: %+v", drop.Last)
		}
		return nil
	})
}

func dropped(t *testing.T, c *cluster, node, reason string) api.NetDrop {
	t.Helper()
	for _, d := range explained[api.NetDrops](t, c, "n1", "drops", "--node", node)[node].Drops {
		if d.Reason == reason {
			return d
		}
	}
	t.Fatalf("no drop reason %q", reason)
	return api.NetDrop{}
}

// testDoctor expects no fault of a sound cluster, and then finds one.
func testDoctor(t *testing.T, c *cluster) {
	for _, f := range examine(t, c) {
		if f.Level == doctor.Fail {
			t.Errorf("%+v", f)
		}
	}
	testAttachments(t, c)
	port := func(mtu int) error {
		return netdev.Do(filepath.Join("/run/netns", c.NamespaceName("sw")), func() error {
			link, err := netlink.LinkByName("n2")
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(link, mtu)
		})
	}
	if err := port(1400); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := port(1500); err != nil {
			t.Error(err)
		}
	}()
	if _, err := c.Orch(t.Context(), "n1", "doctor"); err == nil {
		t.Error("the exit code is 0 with a fault")
	}
	found := make(map[string]bool)
	for _, f := range examine(t, c) {
		if f.Level == doctor.Fail && f.Check == "MTU" && strings.Contains(f.Found, "to n2 only packets of up to 1400 bytes arrive") {
			found[f.Node] = true
		}
	}
	if !found["n1"] || !found["n3"] || len(found) != 2 {
		t.Errorf("the wrong MTU towards n2 was found on %v", found)
	}
}

// testAttachments has orch doctor say of every node, and orch info of its own, by
// what the programs are attached, and why by that.
func testAttachments(t *testing.T, c *cluster) {
	t.Helper()
	why := "asked for by --datapath " + string(c.Options().Datapath)
	told := make(map[string]bool)
	for _, f := range examine(t, c) {
		told[f.Node] = told[f.Node] || f.Check == "attachments" && strings.HasPrefix(f.Found, "eth0: ") && strings.Contains(f.Found, why)
	}
	for _, node := range c.names() {
		if !told[node] {
			t.Errorf("orch doctor does not say of eth0 of %s %q", node, why)
		}
		if out := c.run(t, node, "info"); !strings.Contains(out, why) {
			t.Errorf("orch info of %s does not say %q:\n%s", node, why, out)
		}
	}
}

// examine is what orch doctor finds; it may end with 1.
func examine(t *testing.T, c *cluster) []doctor.Finding {
	t.Helper()
	out, err := c.Orch(t.Context(), "n1", "doctor", "--format", "json")
	var findings []doctor.Finding
	if jsonErr := json.Unmarshal(out, &findings); jsonErr != nil {
		t.Fatalf("orch doctor: %v, %v", err, jsonErr)
	}
	return findings
}
