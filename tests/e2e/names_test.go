package e2e

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

// resolved is what the probe answers to /resolve.
type resolved struct {
	Addrs    []string      `json:"addrs"`
	NotFound bool          `json:"notFound"`
	Error    string        `json:"error"`
	Took     time.Duration `json:"took"`
}

// ask asks a task's own probe, from inside its namespace.
func (c *cluster) ask(t *testing.T, task api.TaskEntry, path string, query url.Values) *http.Response {
	t.Helper()
	client := c.inside(t, task).http(15 * time.Second)
	resp, err := client.Get("http://127.0.0.1:8080" + path + "?" + query.Encode())
	if err != nil {
		t.Fatalf("ask %s: %v", task.Name(), err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (c *cluster) resolve(t *testing.T, task api.TaskEntry, name string) resolved {
	t.Helper()
	client := c.inside(t, task).http(15 * time.Second)
	res, err := get[resolved](client, "http://127.0.0.1:8080/resolve?"+url.Values{"name": {name}}.Encode())
	if err != nil {
		t.Fatalf("resolve %s in %s: %v", name, task.Name(), err)
	}
	slices.Sort(res.Addrs)
	return res
}

// vip is a service's virtual IP.
func (c *cluster) vip(t *testing.T, service string) string {
	t.Helper()
	services, err := list[api.ServiceEntry](t.Context(), c, "n1", "service", "ls")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services {
		if s.Spec.Name == service {
			return s.VIP.String()
		}
	}
	t.Fatalf("there is no service %s", service)
	return ""
}

func addresses(tasks []api.TaskEntry) []string {
	var addrs []string
	for _, task := range tasks {
		addrs = append(addrs, task.Endpoint.Addr.String())
	}
	slices.Sort(addrs)
	return addrs
}

const outsideName = "somewhere.example"

func testNames(t *testing.T, c *cluster) {
	serveOutsideNames(t, c)
	echo, store := c.mustServe(t, "probe_echo"), c.mustServe(t, "probe_store")[0]
	stranger, inner := c.mustServe(t, "other_stranger")[0], c.mustServe(t, "probe_inner")[0]
	vip := []string{c.vip(t, "probe_echo")}

	found := []struct {
		from api.TaskEntry
		name string
		want []string
	}{
		{store, "echo", vip},
		{store, "ECHO", vip},
		{store, "echo.", vip},
		{store, "probe_echo", vip},
		{store, "tasks.echo", addresses(echo)},
		{store, "tasks.probe_echo", addresses(echo)},
		{echo[0], "store", []string{c.vip(t, "probe_store")}},
		{echo[0], "inner", addresses([]api.TaskEntry{inner})},
		{echo[0], "deep.inside", addresses([]api.TaskEntry{inner})},
		{inner, "echo", vip},
		{stranger, "stranger", []string{c.vip(t, "other_stranger")}},
		{store, outsideName, []string{"203.0.113.7"}},
	}
	for _, tc := range found {
		got := c.resolve(t, tc.from, tc.name)
		if diff := cmp.Diff(tc.want, got.Addrs); diff != "" {
			t.Errorf("%s resolves %s to (-want +got):\n%s%s", tc.from.Name(), tc.name, diff, got.Error)
		}
	}
	unknown := []struct {
		from api.TaskEntry
		name string
	}{
		{store, "nobody"},
		{store, "tasks.nobody"},
		{store, "inner"}, // on a network that the store is not on
		{store, "stranger"},
		{store, "other_stranger"},
		{stranger, "echo"},
		{stranger, "tasks.probe_echo"},
		{inner, "store"},
		{store, "deep.inside"},
		{inner, outsideName}, // has no way out
		{store, "nobody.example"},
	}
	for _, tc := range unknown {
		got := c.resolve(t, tc.from, tc.name)
		if !got.NotFound || got.Took > 2*time.Second {
			t.Errorf("%s resolves %s: %v, %q after %v, want a quick no", tc.from.Name(), tc.name, got.Addrs, got.Error, got.Took)
		}
	}
}

// serveOutsideNames answers at the address that the nodes of a lab have as
// their name server.
func serveOutsideNames(t *testing.T, c *cluster) {
	t.Helper()
	var packets net.PacketConn
	err := c.InClient(func() (err error) {
		packets, err = net.ListenPacket("udp", net.JoinHostPort(lab.ClientAddr.String(), "53"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		reply := new(dns.Msg)
		reply.SetReply(query)
		q := query.Question[0]
		switch {
		case strings.TrimSuffix(q.Name, ".") != outsideName:
			reply.Rcode = dns.RcodeNameError
		case q.Qtype == dns.TypeA:
			reply.Answer = append(reply.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1},
				A:   net.ParseIP("203.0.113.7"),
			})
		}
		_ = w.WriteMsg(reply)
	})}
	serving := make(chan struct{})
	server.NotifyStartedFunc = func() { close(serving) }
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	select {
	case <-serving:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		<-ended
	})
}
