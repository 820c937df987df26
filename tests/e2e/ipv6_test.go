package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

// testIPv6 goes by IPv6 where the other steps go by IPv4: from a client to a
// published port of every node, between tasks, and to the outside.
func testIPv6(t *testing.T, c *cluster) {
	var info api.Info
	if err := json.Unmarshal([]byte(c.run(t, "n1", "info", "--format", "json")), &info); err != nil {
		t.Fatal(err)
	}
	inner := func(addr netip.Addr) string {
		return at(api.Address6(api.Pool6(info.ClusterID), addr).String(), probeTarget)
	}
	echo := c.mustServe(t, "probe_echo")
	client := lab.Addr6(lab.ClientAddr).String()
	for _, node := range c.names() {
		addr := at(lab.Addr6(c.find(node).Addr).String(), probePort)
		for name, ask := range map[string]func() (identity, error){
			"TCP": func() (identity, error) { return c.outside().whoami(addr) },
			"UDP": func() (identity, error) { return c.outside().whoamiUDP(t.Context(), addr) },
		} {
			count, err := c.outside().tally(func() (identity, error) {
				id, err := ask()
				if err == nil && id.Client != client {
					err = fmt.Errorf("%s saw the client %s, want %s", id.Replica, id.Client, client)
				}
				return id, err
			}, 200)
			if err != nil {
				t.Errorf("%s through %s: %v", name, node, err)
			}
			balanced(t, name+" by IPv6 through "+node, count, echo, 0.18, 0.5)
		}
		if _, err := download(c.outside(), "http://"+addr+"/bytes?n=1000000"); err != nil {
			t.Errorf("a download through %s: %v", node, err)
		}
	}

	store, stranger := c.mustServe(t, "probe_store")[0], c.mustServe(t, "other_stranger")[0]
	vip := netip.MustParseAddr(c.vip(t, "probe_echo"))
	if _, err := c.inside(t, store).whoami(inner(vip)); err != nil {
		t.Errorf("to the virtual IP: %v", err)
	}
	for _, to := range echo {
		id, err := c.inside(t, store).whoami(inner(to.Endpoint.Addr))
		if err != nil || id.Replica != replica(to) {
			t.Errorf("from %s to %s: %+v, %v", store.Name(), to.Name(), id, err)
		}
		if conn, err := c.inside(t, stranger).dialBriefly("tcp", inner(to.Endpoint.Addr)); err == nil {
			conn.Close()
			t.Errorf("%s reached %s, with which it shares no network", stranger.Name(), to.Name())
		}
	}

	seen := make(chan string, 1)
	world := c.serve(t, at(lab.OutsideAddr6.String(), 0), func(_ http.ResponseWriter, r *http.Request) { seen <- r.RemoteAddr })
	if _, err := fetch(c.inside(t, store).http(requestTime), "http://"+world+"/"); err != nil {
		t.Fatalf("to the outside: %v", err)
	}
	node := lab.Addr6(c.find(store.NodeName).Addr)
	if from, err := netip.ParseAddrPort(<-seen); err != nil || from.Addr() != node {
		t.Errorf("a server outside saw %s, want its node's address %s (%v)", from, node, err)
	}
}
