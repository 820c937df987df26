package rpc

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

// Who may call what, by the certificate shown.
func TestAccess(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	manager, worker := c.node(t, api.RoleManager), c.node(t, api.RoleWorker)
	asManager, asWorker := "manager "+string(manager.id())+" x", "worker "+string(worker.id())+" x"
	client := func(s *Security) *Client { return NewPool(s).Manager(n.addr) }
	nobody := NewJoinClient(c.token(n.addr), time.Now)
	tests := []struct {
		name      string
		client    *Client
		procedure string
		want      string // "": denied
	}{
		{"manager", client(manager), api.ProcDeploy, asManager},
		{"manager", client(manager), api.ProcReport, asManager},
		{"manager", client(manager), api.ProcAdmit, asManager},
		{"manager", client(manager), api.ProcInit, ""},
		{"worker", client(worker), api.ProcReport, asWorker},
		{"worker", client(worker), api.ProcAdmit, asWorker},
		{"worker", client(worker), api.ProcDeploy, ""},
		{"worker", client(worker), api.ProcInit, ""},
		{"worker", client(worker), "/orch.cluster/NotThere", ""},
		{"nobody", nobody, api.ProcAdmit, "nobody x"},
		{"nobody", nobody, api.ProcReport, ""},
		{"nobody", nobody, api.ProcDeploy, ""},
		{"nobody", nobody, api.ProcInit, ""},
		{"nobody", nobody, "/orch.cluster/NotThere", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name+" "+tt.procedure, func(t *testing.T) {
			before := n.calls.Load()
			got, err := call(t, tt.client, tt.procedure)
			if got != tt.want || (tt.want == "") != (api.CodeOf(err) == api.CodeDenied && err != nil) {
				t.Errorf("got %q, %v", got, err)
			}
			if tt.want == "" && n.calls.Load() != before {
				t.Error("the procedure was called")
			}
		})
	}
}

// Each certificate that is not good ends the connection, whatever is called.
func TestBadCertificates(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	// Strangers trust the cluster: it is they who are not to be let in.
	trusting := func(own *pki.Credentials) *Security {
		own.Roots = n.Credentials().Roots
		return secured(own)
	}
	long := pki.DefaultLife + 2*time.Hour
	tests := []struct {
		name string
		sec  *Security
		says string
	}{
		{"of another cluster", trusting(other.issue(t, api.RoleManager, time.Now())), "does not accept this node's certificate"},
		{"expired", trusting(c.issue(t, api.RoleManager, time.Now().Add(-long))), "expired"},
		{"not good yet", trusting(c.issue(t, api.RoleManager, time.Now().Add(long))), "does not accept this node's certificate"},
		{"none", &Security{Credentials: func() *pki.Credentials { return nil }, Now: time.Now}, "in no cluster"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, procedure := range []string{api.ProcAdmit, api.ProcReport, api.ProcDeploy} {
				_, err := echo(t, tt.sec, n.addr, procedure)
				var answered *api.Error
				if err == nil || errors.As(err, &answered) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s: %v, want an error that says %q", procedure, err, tt.says)
				}
			}
			if conn, err := DialRaft(deadline(t), tt.sec, n.addr); err == nil {
				wantClosed(t, conn)
			}
		})
	}
	if n.calls.Load() != 0 || len(n.raft) != 0 {
		t.Errorf("%d calls and %d connections of raft got through", n.calls.Load(), len(n.raft))
	}
}

// A node makes sure whom it talks to before it says anything.
func TestServerIsChecked(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	worker := start(t, c.node(t, api.RoleWorker), nil)
	foreign := start(t, other.node(t, api.RoleManager), nil)
	expired := c.issue(t, api.RoleManager, time.Now().Add(-pki.DefaultLife-time.Hour))
	old := start(t, secured(expired), nil)
	self := c.node(t, api.RoleManager)
	good := start(t, self, nil)
	peers := NewPool(c.node(t, api.RoleManager))
	at := func(id api.NodeID, addr string) *Client {
		ap := netip.MustParseAddrPort(addr)
		return peers.Node(&api.Node{ID: id, Addr: ap.Addr(), APIPort: ap.Port()})
	}
	for _, tt := range []struct {
		name   string
		client *Client
		says   string
	}{
		{"a worker as manager", peers.Manager(worker.addr), "not the node looked for"},
		{"another node", at(c.node(t, api.RoleManager).id(), worker.addr), "not the node looked for"},
		{"another cluster", peers.Manager(foreign.addr), "not a node of this cluster"},
		{"expired", peers.Manager(old.addr), "expired"},
		{"the node itself", at(worker.id(), worker.addr), ""},
		{"a manager", peers.Manager(good.addr), ""},
	} {
		_, err := call(t, tt.client, api.ProcReport)
		if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		}
	}
	for _, n := range []*node{foreign, old} {
		if n.calls.Load() != 0 {
			t.Error("a call reached a node that is not to be trusted")
		}
	}
}

// A token's secret goes to nobody but a manager of its cluster.
func TestJoinClient(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	worker, foreign := start(t, c.node(t, api.RoleWorker), nil), start(t, other.node(t, api.RoleManager), nil)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	heard := make(chan []byte, 1)
	go func() {
		conn, err := plain.Accept()
		if err != nil {
			return
		}
		b := make([]byte, 1<<16)
		n, _ := conn.Read(b)
		_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		conn.Close()
		heard <- b[:n]
	}()
	for _, tt := range []struct{ name, addr, says string }{
		{"another cluster", foreign.addr, "another cluster"},
		{"a worker", worker.addr, "address of a manager"},
		{"no TLS", plain.Addr().String(), "does not speak TLS"},
	} {
		token := c.token(tt.addr)
		_, err := Call[ping, ping](deadline(t), NewJoinClient(token, time.Now), api.ProcAdmit, &ping{token.Secret})
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), token.Secret) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.says)
		}
		if tt.name == "no TLS" && bytes.Contains(<-heard, []byte(token.Secret)) {
			t.Error("the secret was sent in the clear")
		}
	}
	if worker.calls.Load()+foreign.calls.Load() != 0 {
		t.Error("the secret was sent")
	}
}

// Only managers are believed when they say for whom they ask.
func TestForgedForwarding(t *testing.T) {
	c, other := newCluster(t), newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	manager, worker := c.node(t, api.RoleManager), c.node(t, api.RoleWorker)
	tests := []struct {
		name   string
		client *Client
		header string
		status int
	}{
		{"manager for a worker", NewPool(manager).Manager(n.addr), worker.Credentials().Identity.String(), http.StatusForbidden},
		{"manager for nobody", NewPool(manager).Manager(n.addr), forNobody, http.StatusForbidden},
		{"manager for its user", NewPool(manager).Manager(n.addr), forSelf, http.StatusOK},
		{"manager for another cluster's", NewPool(manager).Manager(n.addr), other.node(t, api.RoleManager).Credentials().Identity.String(), http.StatusForbidden},
		{"worker for a manager", NewPool(worker).Manager(n.addr), manager.Credentials().Identity.String(), http.StatusForbidden},
		{"worker for its user", NewPool(worker).Manager(n.addr), forSelf, http.StatusForbidden},
		{"nobody for a manager", NewJoinClient(c.token(n.addr), time.Now), manager.Credentials().Identity.String(), http.StatusForbidden},
		{"nobody for itself", NewJoinClient(c.token(n.addr), time.Now), forSelf, http.StatusForbidden},
	}
	for _, tt := range tests {
		req, err := http.NewRequestWithContext(deadline(t), http.MethodPost, baseURL+api.ProcDeploy, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set(callerHeader, tt.header)
		res, err := tt.client.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != tt.status {
			t.Errorf("%s: %s, want %d", tt.name, res.Status, tt.status)
		}
	}
}

// Who is asked learns who passed a call on, to look that one up, too. Who speaks for
// itself passes nothing on.
func TestPassedOnBy(t *testing.T) {
	c := newCluster(t)
	manager := c.issue(t, api.RoleManager, time.Now()).Identity
	other, before := c.issue(t, api.RoleWorker, time.Now()).Identity, manager
	before.Role = api.RoleWorker
	for _, tt := range []struct {
		name, header string
		want         Caller
	}{
		{"its own", "", Caller{Identity: manager}},
		{"its user's", forSelf, Caller{Identity: manager}},
		{"its own, on", manager.String(), Caller{Identity: manager}},
		{"its own, by a certificate from before", before.String(), Caller{Identity: before}},
		{"another's", other.String(), Caller{Identity: other, By: manager.Node}},
		{"nobody's", forNobody, Caller{By: manager.Node}},
	} {
		r := httptest.NewRequest(http.MethodPost, api.ProcReport, nil)
		r.Header.Set(callerHeader, tt.header)
		r = r.WithContext(context.WithValue(r.Context(), peerKey{}, Caller{Identity: manager}))
		got, err := remoteCaller(r)
		if err != nil || got != tt.want || got.Anonymous() != (tt.header == forNobody) {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
}

// Nodes speak TLS 1.3 and nothing older, whichever side asks for it.
func TestOlderTLSIsRefused(t *testing.T) {
	c := newCluster(t)
	manager, peer := c.node(t, api.RoleManager), c.node(t, api.RoleManager)
	for _, raft := range []bool{false, true} {
		for version, refused := range map[uint16]bool{tls.VersionTLS12: true, tls.VersionTLS13: false} {
			protocol := protocolAPI
			if raft {
				protocol = manager.raftProtocol()
			}
			for _, older := range []string{"client", "server"} {
				client, err := peer.client(pki.RoleName(api.RoleManager), protocol)
				if err != nil {
					t.Fatal(err)
				}
				server, err := manager.server(raft).GetConfigForClient(nil)
				if err != nil {
					t.Fatal(err)
				}
				side := client
				if older == "server" {
					side = server
				}
				side.MinVersion, side.MaxVersion = tls.VersionTLS12, version
				if err := handshake(t, client, server); (err != nil) != refused {
					t.Errorf("raft %t, a %s of %s: %v, want it refused: %t", raft, older, tls.VersionName(version), err, refused)
				}
			}
		}
	}
}

// handshake returns how it ended, by whichever side gave it up.
func handshake(t *testing.T, client, server *tls.Config) error {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	ended := make(chan error, 1)
	go func() { ended <- tls.Server(far, server).HandshakeContext(deadline(t)) }()
	err := tls.Client(near, client).HandshakeContext(deadline(t))
	near.Close()
	return errors.Join(err, <-ended)
}

func TestRaftSharesThePort(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	conn, err := DialRaft(deadline(t), c.node(t, api.RoleManager), n.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "entry\n"); err != nil {
		t.Fatal(err)
	}
	got := <-n.raft
	defer got.Close()
	line, err := bufio.NewReader(got).ReadString('\n')
	if err != nil || line != "entry\n" {
		t.Fatalf("raft read %q, %v", line, err)
	}
}

func TestRaftIsForManagers(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	worker, err := c.node(t, api.RoleWorker).client(pki.RoleName(api.RoleManager), protocolRaft)
	if err != nil {
		t.Fatal(err)
	}
	nobody := worker.Clone()
	nobody.GetClientCertificate = nil
	neither := worker.Clone()
	neither.NextProtos = nil
	for name, config := range map[string]*tls.Config{"worker": worker, "nobody": nobody, "neither protocol": neither} {
		conn, err := dial(deadline(t), n.addr, config)
		if err == nil {
			wantClosed(t, conn)
		}
		t.Log(name, err)
	}
	if len(n.raft) != 0 {
		t.Error("one that is no manager reached raft")
	}
}

// wantClosed waits until the other side ends a connection.
func wantClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(guestTime))
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the connection stays open: %v", err)
	}
}

// New credentials are used by new connections, and the open ones stay.
func TestRenewal(t *testing.T) {
	c := newCluster(t)
	before, after := c.issue(t, api.RoleManager, time.Now()), c.issue(t, api.RoleManager, time.Now())
	var serverOwn, clientOwn atomic.Pointer[pki.Credentials]
	serverOwn.Store(before)
	clientOwn.Store(before)
	server := start(t, &Security{Credentials: serverOwn.Load, Now: time.Now}, nil)
	peers := NewPool(&Security{Credentials: clientOwn.Load, Now: time.Now})
	ctx, cancel := context.WithCancel(deadline(t))
	counts, ended := make(chan string, 3), make(chan error, 1)
	go func() {
		ended <- Stream(ctx, peers.Manager(server.addr), procCount, &ping{}, func(p *ping) error { counts <- p.Text; return nil })
	}()
	for range 3 {
		<-counts
	}
	clientOwn.Store(after)
	peers.Reset()
	if got, err := call(t, peers.Manager(server.addr), api.ProcReport); err != nil || got != "manager "+string(after.Identity.Node)+" x" {
		t.Errorf("after the renewal: %q, %v", got, err)
	}
	select {
	case err := <-ended:
		t.Errorf("the renewal ended a stream: %v", err)
	default:
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the stream ended by itself: %v", err)
	}
	serverOwn.Store(after)
	ap := netip.MustParseAddrPort(server.addr)
	if _, err := call(t, peers.Node(&api.Node{ID: after.Identity.Node, Addr: ap.Addr(), APIPort: ap.Port()}), api.ProcReport); err != nil {
		t.Errorf("the server does not show its new certificate: %v", err)
	}
}

// Callers without a certificate cannot fill a manager's memory or its time.
func TestGuestsAreBounded(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	t.Run("message", func(t *testing.T) {
		_, err := Call[ping, ping](deadline(t), NewJoinClient(c.token(n.addr), time.Now), api.ProcAdmit, &ping{strings.Repeat("x", maxGuestMessage)})
		if err == nil || n.calls.Load() != 0 {
			t.Errorf("a message of more than %d bytes: %v", maxGuestMessage, err)
		}
	})
	t.Run("connections", func(t *testing.T) {
		const over = 10
		var silent []net.Conn
		began := time.Now()
		for range maxGuestsPerSource + over {
			conn, err := net.Dial("tcp", n.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			silent = append(silent, conn)
		}
		for _, conn := range silent[:over] { // too many
			wantClosed(t, conn)
		}
		if took := time.Since(began); took > dialTimeout {
			t.Errorf("those that are too many are open for %v", took)
		}
		wantClosed(t, silent[over]) // too slow
		if took := time.Since(began); took < dialTimeout {
			t.Errorf("one that is not too many is closed after %v", took)
		}
		if _, err := echo(t, c.node(t, api.RoleWorker), n.addr, api.ProcReport); err != nil {
			t.Errorf("a member after that: %v", err)
		}
	})
	t.Run("attempts", func(t *testing.T) {
		client := NewJoinClient(c.token(n.addr), time.Now)
		refused := 0
		for range guestBurst + 10 {
			if _, err := call(t, client, api.ProcAdmit); api.CodeOf(err) == api.CodeUnavailable && strings.Contains(err.Error(), "too many attempts") {
				refused++
			}
		}
		if refused == 0 {
			t.Error("nobody was told to wait")
		}
		if _, err := echo(t, c.node(t, api.RoleWorker), n.addr, api.ProcReport); err != nil {
			t.Errorf("a member meanwhile: %v", err)
		}
	})
}

// Silent connections of an address keep no member out that has the same one, as a
// node has whose containers open them.
func TestGuestsKeepNoMemberOut(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	for range 2 * maxGuestsPerSource {
		conn, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for _, role := range []api.Role{api.RoleWorker, api.RoleManager} {
		if _, err := echo(t, c.node(t, role), n.addr, api.ProcReport); err != nil {
			t.Errorf("a %s: %v", role, err)
		}
	}
	conn, err := DialRaft(deadline(t), c.node(t, api.RoleManager), n.addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// from is a connection from an address.
type from struct {
	net.Conn
	addr   netip.Addr
	closed bool
}

func (f *from) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.addr, 1)) }
func (f *from) Close() error         { f.closed = true; return nil }

// For one connection too many of all, the oldest of the source that has the most
// goes; the number stays what it is. One that is closed like that is nobody's.
func TestGuestsMakeRoom(t *testing.T) {
	g := guests{sources: make(map[netip.Addr]int)}
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
	var open []*from
	var entered []*guest
	enter := func(i int) {
		conn := &from{addr: address(i)}
		open, entered = append(open, conn), append(entered, g.enter(conn))
	}
	enter(1)
	for range 3 {
		enter(2)
	}
	for i := range maxGuests - 4 {
		enter(3 + i/2)
	}
	for i := range 10 {
		enter(200 + i)
	}
	// Of source 2 two go, until it has as many as the others do at most; then the oldest
	// of those with as many.
	var closed []int
	for i, conn := range open {
		if conn.closed {
			closed = append(closed, i)
		}
	}
	if want := []int{1, 2, 4, 6, 8, 10, 12, 14, 16, 18}; !slices.Equal(closed, want) {
		t.Errorf("closed %v, want %v", closed, want)
	}
	total := 0
	for _, n := range g.sources {
		total += n
	}
	if len(g.open) != maxGuests || total != maxGuests {
		t.Errorf("%d connections count, of sources %d; want %d", len(g.open), total, maxGuests)
	}
	if g.leave(entered[1]) {
		t.Error("a connection that was closed becomes a member's")
	}
	for _, e := range entered {
		e.leave()
	}
	if len(g.open) != 0 || len(g.sources) != 0 {
		t.Errorf("%d connections of %d sources count after all are closed", len(g.open), len(g.sources))
	}
}

func TestLimiter(t *testing.T) {
	now := time.Unix(0, 0)
	l := newGuestLimiter(func() time.Time { return now })
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i := range guestBurst {
		if !l.Allow(a) {
			t.Fatalf("attempt %d is refused", i)
		}
	}
	if l.Allow(a) || !l.Allow(b) {
		t.Error("one address counts for another, or for none")
	}
	now = now.Add(guestEvery)
	if !l.Allow(a) || l.Allow(a) {
		t.Error("it does not go on at its pace")
	}
	for i := range maxSources {
		l.Allow(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
	}
	if len(l.sources) > maxSources {
		t.Errorf("%d addresses are remembered", len(l.sources))
	}
}
