package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

const probeTarget = 8080 // the port that every probe listens on

func at(addr string, port int) string { return net.JoinHostPort(addr, strconv.Itoa(port)) }

// testTaskToTask goes by virtual IP, by task address and by published port,
// from a task that is no backend and from one that is.
func testTaskToTask(t *testing.T, c *cluster) {
	echo, store := c.mustServe(t, "probe_echo"), c.mustServe(t, "probe_store")[0]
	vip := at(c.vip(t, "probe_echo"), probeTarget)
	for _, from := range []api.TaskEntry{store, echo[0]} {
		self := from.Endpoint.Addr.String()
		count, err := c.inside(t, from).tally(func() (identity, error) {
			id, err := c.inside(t, from).whoami(vip)
			// A task that reaches itself through its service cannot see its
			// own address as its peer's.
			if err == nil && id.Client != self && id.Replica != replica(from) {
				err = fmt.Errorf("%s saw the client %s, want %s", id.Replica, id.Client, self)
			}
			return id, err
		}, 600)
		if err != nil {
			t.Errorf("from %s to the virtual IP: %v", from.Name(), err)
		}
		balanced(t, "from "+from.Name()+" to the virtual IP", count, echo, 0.22, 0.45)

		for _, to := range echo {
			id, err := c.inside(t, from).whoami(at(to.Endpoint.Addr.String(), probeTarget))
			want := identity{Replica: replica(to), Version: "v1", Client: self}
			if err != nil || id != want {
				t.Errorf("from %s on %s to %s on %s: %+v, %v, want %+v", from.Name(), from.NodeName, to.Name(), to.NodeName, id, err, want)
			}
			id, err = c.inside(t, from).whoamiUDP(t.Context(), at(to.Endpoint.Addr.String(), probeTarget))
			if err != nil || id != want {
				t.Errorf("from %s to %s over UDP: %+v, %v, want %+v", from.Name(), to.Name(), id, err, want)
			}
		}
		for _, node := range c.names() {
			count, err := c.inside(t, from).tally(func() (identity, error) {
				return c.inside(t, from).whoami(c.addr(node, probePort))
			}, 30)
			if err != nil {
				t.Errorf("from %s on %s to the port published on %s: %v (%v)", from.Name(), from.NodeName, node, err, count)
			}
		}
	}
	// By name, as the system resolves it; and with a node as the client.
	resp := c.ask(t, store, "/fetch", map[string][]string{"url": {"http://echo:8080/whoami"}})
	if resp.StatusCode != http.StatusOK {
		t.Errorf("fetch by name: %s", resp.Status)
	}
	for _, node := range c.names("n1") {
		id, err := c.on("n1").whoami(c.addr(node, probePort))
		if want := c.find("n1").Addr.String(); err != nil || id.Client != want {
			t.Errorf("from the node n1 to the port published on %s: %+v, %v, want the client %s", node, id, err, want)
		}
	}
}

// testIsolation has tasks that share no network try to reach each other, by
// every address there is.
func testIsolation(t *testing.T, c *cluster) {
	stranger := c.mustServe(t, "other_stranger")[0]
	targets := map[string]string{
		"the virtual IP": at(c.vip(t, "probe_echo"), probeTarget),
		"nobody":         "10.191.255.254:8080",
	}
	for _, to := range c.mustServe(t, "probe_echo") {
		targets[to.Name()+" on "+to.NodeName] = at(to.Endpoint.Addr.String(), probeTarget)
	}
	before := c.scrape(t, stranger.NodeName).drops()
	for name, addr := range targets {
		conn, err := c.inside(t, stranger).dialBriefly("tcp", addr)
		if err == nil {
			conn.Close()
			t.Errorf("%s on %s reached %s (%s)", stranger.Name(), stranger.NodeName, name, addr)
		}
	}
	after := c.scrape(t, stranger.NodeName).drops()
	for _, reason := range []string{"isolated", "unknown-destination"} {
		if after[reason] <= before[reason] {
			t.Errorf("drops counted as %q on %s: %v before, %v after: %v", reason, stranger.NodeName, before[reason], after[reason], after)
		}
	}
	// From outside, not even a client that sends them to a node reaches tasks by
	// their addresses.
	routeToPool(t, c)
	for name, addr := range targets {
		if conn, err := c.outside().dialBriefly("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("the client outside reached %s (%s)", name, addr)
		}
	}
	// The way that is open: the published port.
	if _, err := c.inside(t, stranger).whoami(c.addr("n2", probePort)); err != nil {
		t.Errorf("from %s to the published port: %v", stranger.Name(), err)
	}
}

// routeToPool has the client send what is for tasks to the first node.
func routeToPool(t *testing.T, c *cluster) {
	t.Helper()
	pool := netip.MustParsePrefix(api.DefaultPool)
	route := &netlink.Route{
		Dst: &net.IPNet{IP: pool.Addr().AsSlice(), Mask: net.CIDRMask(pool.Bits(), 32)},
		Gw:  c.Node(1).Addr.AsSlice(),
	}
	if err := c.InClient(func() error { return netlink.RouteAdd(route) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.InClient(func() error { return netlink.RouteDel(route) }); err != nil {
			t.Error(err)
		}
	})
}

// briefly is how long a connection that must not come about is tried.
const briefly = 600 * time.Millisecond

func (v vantage) dialBriefly(network, addr string) (net.Conn, error) {
	var conn net.Conn
	dialer := net.Dialer{Timeout: briefly}
	err := v.in(func() (err error) {
		conn, err = dialer.Dial(network, addr)
		return err
	})
	return conn, err
}

// testOutside is about the world beyond the nodes as tasks see it.
func testOutside(t *testing.T, c *cluster) {
	seen := make(chan netip.Addr, 10)
	world := c.serve(t, lab.OutsideAddr.String()+":0", func(_ http.ResponseWriter, r *http.Request) {
		if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			seen <- from.Addr()
		}
	})
	for _, task := range c.mustServe(t, "probe_echo") {
		node := c.find(task.NodeName)
		if _, err := fetch(c.inside(t, task).http(requestTime), "http://"+world+"/"); err != nil {
			t.Errorf("from %s on %s: %v", task.Name(), task.NodeName, err)
			continue
		}
		if got := <-seen; got != node.Addr {
			t.Errorf("a server outside saw %s come from %s, want its node's address %s", task.Name(), got, node.Addr)
		}
	}
	inner := c.mustServe(t, "probe_inner")[0]
	before := c.scrape(t, inner.NodeName).drops()["internal"]
	if conn, err := c.inside(t, inner).dialBriefly("tcp", world); err == nil {
		conn.Close()
		t.Errorf("%s, whose only network is internal, reached the outside", inner.Name())
	}
	if after := c.scrape(t, inner.NodeName).drops()["internal"]; after <= before {
		t.Errorf(`drops counted as "internal" on %s: %v before, %v after`, inner.NodeName, before, after)
	}
}

func testUDP(t *testing.T, c *cluster) {
	echo := c.mustServe(t, "probe_echo")
	for _, node := range c.names() {
		addr := c.addr(node, probePort)
		count, err := c.outside().tally(func() (identity, error) {
			id, err := c.outside().whoamiUDP(t.Context(), addr)
			if err == nil && id.Client != lab.ClientAddr.String() {
				err = fmt.Errorf("%s saw the client %s, want %s", id.Replica, id.Client, lab.ClientAddr)
			}
			return id, err
		}, 300)
		if err != nil {
			t.Errorf("through %s: %v", node, err)
		}
		balanced(t, "UDP through "+node, count, echo, 0.2, 0.47)
	}
}

// testTransfers moves more than one window through every node, from each
// replica, and compares digests.
func testTransfers(t *testing.T, c *cluster) {
	const size = 4 << 20
	echo := c.mustServe(t, "probe_echo")
	for _, task := range echo {
		device, err := get[struct {
			MTU   int      `json:"mtu"`
			Addrs []string `json:"addrs"`
		}](c.inside(t, task).http(requestTime), "http://127.0.0.1:8080/interface")
		if err != nil || device.MTU != 1500-api.OverlayOverhead {
			t.Errorf("interface of %s: %+v, %v", task.Name(), device, err)
		}
	}
	for _, node := range c.names() {
		from := map[string]bool{}
		start, total := time.Now(), 0
		for tries := 0; len(from) < len(echo) && tries < 30; tries++ {
			replica, err := download(c.outside(), fmt.Sprintf("http://%s/bytes?n=%d", c.addr(node, probePort), size))
			if err != nil {
				t.Fatalf("through %s: %v", node, err)
			}
			from[replica] = true
			total += size
		}
		t.Logf("through %s: %.0f Mbit/s", node, float64(total)*8/1e6/time.Since(start).Seconds())
	}
	store := c.mustServe(t, "probe_store")[0]
	for _, task := range echo {
		url := fmt.Sprintf("http://%s/bytes?n=%d", at(task.Endpoint.Addr.String(), probeTarget), size)
		start := time.Now()
		if _, err := download(c.inside(t, store), url); err != nil {
			t.Errorf("from %s on %s to %s on %s: %v", task.Name(), task.NodeName, store.Name(), store.NodeName, err)
		}
		t.Logf("from %s to %s: %.0f Mbit/s", task.NodeName, store.NodeName, float64(size)*8/1e6/time.Since(start).Seconds())
	}
}

// download compares what it gets with the digest that follows, and returns the
// replica that sent it.
func download(v vantage, url string) (replica string, err error) {
	resp, err := v.http(20 * time.Second).Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, resp.Body); err != nil {
		return "", err
	}
	if got, want := hex.EncodeToString(digest.Sum(nil)), resp.Trailer.Get("X-Sha256"); got != want {
		return "", fmt.Errorf("the bytes have the digest %s, the sender says %s", got, want)
	}
	return resp.Header.Get("X-Replica"), nil
}
