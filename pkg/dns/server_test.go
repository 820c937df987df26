package dns_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	mdns "github.com/miekg/dns"
	"github.com/orch-dev/orch/pkg/dns"
	"go.uber.org/goleak"
)

// Addresses of the loopback network stand for the node, its tasks and a
// stranger: the server tells them apart by source address alone.
const (
	node     = "127.0.0.1"
	webTask  = "127.0.0.2" // on networks 1 and 2
	apiTask  = "127.0.0.3" // on network 2
	inTask   = "127.0.0.4" // on network 1, with no way out
	stranger = "127.0.0.9"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// blogZone has a service web on network 1 and another of that name on 2.
func blogZone() *dns.Zone {
	return &dns.Zone{
		Clients: map[netip.Addr][]uint32{
			netip.MustParseAddr(webTask): {1, 2},
			netip.MustParseAddr(apiTask): {2},
			netip.MustParseAddr(inTask):  {1},
		},
		Inside: map[netip.Addr]bool{netip.MustParseAddr(inTask): true},
		Names: map[uint32]map[string][]netip.Addr{
			1: {
				"web": addrs("10.128.0.1"), "blog_web": addrs("10.128.0.1"),
				"tasks.web":  addrs("10.128.0.11", "10.128.0.12", "10.128.0.13"),
				"tasks.idle": nil,
			},
			2: {
				"web": addrs("10.128.0.2"), "shop_web": addrs("10.128.0.2"),
				"api": addrs("10.128.0.3"),
			},
		},
	}
}

// freePort is one that UDP and TCP can be served on at host.
func freePort(t *testing.T, host string) string {
	t.Helper()
	for range 50 {
		packets, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		addr := packets.LocalAddr().String()
		streams, err := net.Listen("tcp", addr)
		packets.Close()
		if err == nil {
			streams.Close()
			return addr
		}
	}
	t.Fatal("no port is free for both UDP and TCP")
	return ""
}

// start runs a server until the test ends and returns where it listens.
func start(t *testing.T, zone *dns.Zone, upstreams ...string) (*dns.Server, string) {
	t.Helper()
	addr := freePort(t, node)
	server := dns.New(dns.Config{Listen: []string{addr}, Upstreams: upstreams, Log: slog.New(slog.DiscardHandler)})
	if zone != nil {
		server.Set(zone)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	// Sockets are open once a TCP connection is accepted.
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return server, addr
		}
		if time.Now().After(end) {
			t.Fatalf("server does not listen: %v", err)
		}
	}
}

// query asks the server from an address.
func query(t *testing.T, network, server, from, name string, qtype uint16) *mdns.Msg {
	t.Helper()
	dialer := &net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
	if network == "tcp" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	client := mdns.Client{Net: network, Timeout: 10 * time.Second, Dialer: dialer}
	question := new(mdns.Msg)
	question.SetQuestion(name, qtype)
	reply, _, err := client.Exchange(question, server)
	if err != nil {
		t.Fatalf("ask for %s from %s over %s: %v", name, from, network, err)
	}
	return reply
}

// result is what a reply says, in the words of the tests.
type result struct {
	Code  string
	Addrs []netip.Addr // sorted
}

func resultOf(reply *mdns.Msg) result {
	r := result{Code: mdns.RcodeToString[reply.Rcode]}
	for _, rr := range reply.Answer {
		if a, ok := rr.(*mdns.A); ok {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			r.Addrs = append(r.Addrs, addr)
		}
	}
	slices.SortFunc(r.Addrs, netip.Addr.Compare)
	return r
}

var cmpResult = cmp.Options{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})}

func TestNames(t *testing.T) {
	_, addr := start(t, blogZone())
	ok := func(list ...string) result { return result{"NOERROR", addrs(list...)} }
	tests := []struct {
		name  string
		from  string
		ask   string
		qtype uint16
		want  result
	}{
		{"a service", webTask, "web.", mdns.TypeA, ok("10.128.0.1")},
		{"its full name", webTask, "blog_web.", mdns.TypeA, ok("10.128.0.1")},
		{"in any case", webTask, "WeB.", mdns.TypeA, ok("10.128.0.1")},
		{"its tasks", webTask, "tasks.web.", mdns.TypeA, ok("10.128.0.11", "10.128.0.12", "10.128.0.13")},
		{"no task is ready", webTask, "tasks.idle.", mdns.TypeA, ok()},
		{"the second network", webTask, "api.", mdns.TypeA, ok("10.128.0.3")},
		{"one name on two networks", apiTask, "web.", mdns.TypeA, ok("10.128.0.2")},
		{"no IPv6", webTask, "web.", mdns.TypeAAAA, ok()},
		{"no other record", webTask, "web.", mdns.TypeMX, ok()},
		{"a network not shared", apiTask, "blog_web.", mdns.TypeA, result{"NXDOMAIN", nil}},
		{"tasks of a network not shared", apiTask, "tasks.web.", mdns.TypeA, result{"NXDOMAIN", nil}},
		{"unknown", webTask, "nothing.", mdns.TypeA, result{"NXDOMAIN", nil}},
		{"unknown, IPv6", webTask, "nothing.", mdns.TypeAAAA, result{"NXDOMAIN", nil}},
		{"outside, nobody to ask", webTask, "example.com.", mdns.TypeA, result{"SERVFAIL", nil}},
		{"outside, from inside", inTask, "example.com.", mdns.TypeA, result{"NXDOMAIN", nil}},
		{"the node itself", node, "api.", mdns.TypeA, ok("10.128.0.3")},
		{"a stranger", stranger, "web.", mdns.TypeA, result{"REFUSED", nil}},
		{"a stranger, outside", stranger, "example.com.", mdns.TypeA, result{"REFUSED", nil}},
	}
	for _, test := range tests {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(test.name+" "+network, func(t *testing.T) {
				reply := query(t, network, addr, test.from, test.ask, test.qtype)
				if diff := cmp.Diff(test.want, resultOf(reply), cmpResult); diff != "" {
					t.Errorf("reply (-want +got):\n%s", diff)
				}
				if len(reply.Answer) > 0 && (reply.Answer[0].Header().Name != test.ask || reply.Answer[0].Header().Ttl != 0) {
					t.Errorf("record %v, want the name as asked and a TTL of 0", reply.Answer[0])
				}
			})
		}
	}
}

func TestTasksInTurn(t *testing.T) {
	_, addr := start(t, blogZone())
	first := map[string]int{}
	for range 300 {
		reply := query(t, "udp", addr, webTask, "tasks.web.", mdns.TypeA)
		first[reply.Answer[0].(*mdns.A).A.String()]++
	}
	// Each is first 100 times of 300 by expectation; fewer than 50 happens less
	// than once in a billion runs.
	for _, task := range []string{"10.128.0.11", "10.128.0.12", "10.128.0.13"} {
		if first[task] < 50 {
			t.Errorf("%s came first %d times of 300", task, first[task])
		}
	}
}

func TestRemovedTaskIsNotAnswered(t *testing.T) {
	server, addr := start(t, blogZone())
	query(t, "udp", addr, webTask, "tasks.web.", mdns.TypeA)
	zone := blogZone()
	zone.Names[1]["tasks.web"] = addrs("10.128.0.12")
	delete(zone.Clients, netip.MustParseAddr(apiTask))
	server.Set(zone)
	want := result{"NOERROR", addrs("10.128.0.12")}
	if diff := cmp.Diff(want, resultOf(query(t, "udp", addr, webTask, "tasks.web.", mdns.TypeA)), cmpResult); diff != "" {
		t.Errorf("reply (-want +got):\n%s", diff)
	}
	if got := resultOf(query(t, "udp", addr, apiTask, "web.", mdns.TypeA)); got.Code != "REFUSED" {
		t.Errorf("a task that is gone got %v", got)
	}
}

func TestManyTasksNeedTCP(t *testing.T) {
	zone := blogZone()
	var many []netip.Addr
	for i := range 300 {
		many = append(many, netip.AddrFrom4([4]byte{10, 128, byte(1 + i/250), byte(1 + i%250)}))
	}
	zone.Names[1]["tasks.web"] = many
	_, addr := start(t, zone)
	reply := query(t, "udp", addr, webTask, "tasks.web.", mdns.TypeA)
	reply.Compress = true // as it was sent
	if !reply.Truncated || reply.Len() > 512 {
		t.Errorf("over UDP: truncated %t, %d bytes", reply.Truncated, reply.Len())
	}
	got := resultOf(query(t, "tcp", addr, webTask, "tasks.web.", mdns.TypeA))
	if diff := cmp.Diff(result{"NOERROR", many}, got, cmpResult); diff != "" {
		t.Errorf("over TCP (-want +got):\n%s", diff)
	}
}

// TestGoResolver asks as an application does.
func TestGoResolver(t *testing.T) {
	_, addr := start(t, blogZone())
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(webTask)}}
		return dialer.DialContext(ctx, network, addr)
	}}
	got, err := resolver.LookupNetIP(context.Background(), "ip", "tasks.web.")
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = got[i].Unmap()
	}
	slices.SortFunc(got, netip.Addr.Compare)
	if diff := cmp.Diff(addrs("10.128.0.11", "10.128.0.12", "10.128.0.13"), got, cmpResult); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestQueriesWaitForTheFirstZone(t *testing.T) {
	server, addr := start(t, nil)
	got := make(chan result, 1)
	go func() {
		question := new(mdns.Msg)
		question.SetQuestion("web.", mdns.TypeA)
		client := mdns.Client{Timeout: 10 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(webTask)}}}
		reply, _, err := client.Exchange(question, addr)
		if err != nil {
			got <- result{Code: err.Error()}
			return
		}
		got <- resultOf(reply)
	}()
	select {
	case r := <-got:
		t.Fatalf("answered without a zone: %v", r)
	case <-time.After(50 * time.Millisecond):
	}
	server.Set(blogZone())
	if diff := cmp.Diff(result{"NOERROR", addrs("10.128.0.1")}, <-got, cmpResult); diff != "" {
		t.Errorf("reply (-want +got):\n%s", diff)
	}
}

func TestListenFails(t *testing.T) {
	_, addr := start(t, blogZone())
	other := freePort(t, node)
	server := dns.New(dns.Config{Listen: []string{other, addr}, Log: slog.New(slog.DiscardHandler)})
	if err := server.Run(context.Background()); err == nil {
		t.Fatal("Run on an address in use returned no error")
	}
	conn, err := net.ListenPacket("udp", other)
	if err != nil {
		t.Fatalf("the address that it could listen on is not free again: %v", err)
	}
	conn.Close()
}

func TestUpstreamsOfFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("search x\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := dns.Upstreams(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"192.0.2.1:53", "[2001:db8::1]:53"}, got); diff != "" {
		t.Errorf("upstreams (-want +got):\n%s", diff)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstream is a name server outside the cluster.
func upstream(t *testing.T, handle mdns.HandlerFunc) string {
	t.Helper()
	addr := freePort(t, node)
	packets, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	servers := []*mdns.Server{{PacketConn: packets, Handler: handle}, {Listener: streams, Handler: handle}}
	for _, s := range servers {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			_ = s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			if err := s.Shutdown(); err != nil {
				t.Errorf("stop upstream: %v", err)
			}
			<-ended
		})
	}
	return addr
}

func TestForward(t *testing.T) {
	answer := func(w mdns.ResponseWriter, q *mdns.Msg) {
		reply := new(mdns.Msg)
		reply.SetReply(q)
		switch q.Question[0].Name {
		case "example.com.":
			reply.Answer = append(reply.Answer, record(t, "example.com. 300 IN A 192.0.2.7"))
		case "large.example.":
			for i := range 100 {
				reply.Answer = append(reply.Answer, record(t, fmt.Sprintf("large.example. 300 IN A 192.0.2.%d", i)))
			}
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				reply.Truncate(512)
			}
		default:
			reply.Rcode = mdns.RcodeNameError
		}
		_ = w.WriteMsg(reply)
	}
	fails := upstream(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		reply := new(mdns.Msg)
		reply.SetRcode(q, mdns.RcodeServerFailure)
		_ = w.WriteMsg(reply)
	})
	closed := freePort(t, node)
	zone := blogZone()
	zone.Upstreams = map[netip.Addr][]string{netip.MustParseAddr(apiTask): {upstream(t, func(w mdns.ResponseWriter, q *mdns.Msg) {
		reply := new(mdns.Msg)
		reply.SetReply(q)
		reply.Answer = append(reply.Answer, record(t, "example.com. 300 IN A 192.0.2.99"))
		_ = w.WriteMsg(reply)
	})}}
	_, addr := start(t, zone, closed, fails, upstream(t, answer))

	if diff := cmp.Diff(result{"NOERROR", addrs("192.0.2.99")}, resultOf(query(t, "udp", addr, apiTask, "example.com.", mdns.TypeA)), cmpResult); diff != "" {
		t.Errorf("of a server of the task's own (-want +got):\n%s", diff)
	}

	if diff := cmp.Diff(result{"NOERROR", addrs("192.0.2.7")}, resultOf(query(t, "udp", addr, webTask, "example.com.", mdns.TypeA)), cmpResult); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if got := resultOf(query(t, "udp", addr, webTask, "nothing.example.", mdns.TypeA)); got.Code != "NXDOMAIN" {
		t.Errorf("not found: %v", got)
	}
	if reply := query(t, "udp", addr, webTask, "large.example.", mdns.TypeA); !reply.Truncated {
		t.Error("a large answer over UDP is not marked truncated")
	}
	if got := resultOf(query(t, "tcp", addr, webTask, "large.example.", mdns.TypeA)); len(got.Addrs) != 100 {
		t.Errorf("a large answer over TCP: %d addresses, want 100", len(got.Addrs))
	}
}

func TestForwardNotToItself(t *testing.T) {
	addr := freePort(t, node)
	server := dns.New(dns.Config{Listen: []string{addr}, Upstreams: []string{addr}, Log: slog.New(slog.DiscardHandler)})
	server.Set(blogZone())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			break
		}
	}
	if got := resultOf(query(t, "udp", addr, webTask, "example.com.", mdns.TypeA)); got.Code != "SERVFAIL" {
		t.Errorf("got %v, want SERVFAIL at once", got)
	}
}

func record(t *testing.T, text string) mdns.RR {
	t.Helper()
	rr, err := mdns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}
