package rpc

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// send sends a body to a procedure as it is, and returns the status and the text of
// the answer.
func send(t *testing.T, c *Client, procedure string, body io.Reader, header ...string) (int, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), http.MethodPost, baseURL+procedure, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// What a worker sends that was broken into: none of it reaches a procedure, and
// none of it keeps another node from being answered.
func TestHostileMessages(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), func(m *Mux) { m.bodyTime = 300 * time.Millisecond })
	hostile, honest := NewPool(c.node(t, api.RoleWorker)).Manager(n.addr), c.node(t, api.RoleWorker)
	var bomb bytes.Buffer
	packer := gzip.NewWriter(&bomb)
	for range 64 {
		_, _ = packer.Write(make([]byte, 1<<20))
	}
	_ = packer.Close()
	never, end := io.Pipe() // a body of which nothing comes
	defer end.Close()
	tests := []struct {
		name   string
		body   io.Reader
		header []string
	}{
		{"a message that is too large", strings.NewReader(`{"Text":"` + strings.Repeat("x", maxWorkerMessage) + `"}`), nil},
		{"one that does not end", io.MultiReader(strings.NewReader(`{"Text":"`), endless{}), nil},
		{"one that does not come", never, nil},
		{"deep nesting", strings.NewReader(`{"Text":` + strings.Repeat("[", 1<<20)), nil},
		{"deep nesting of what is not known", strings.NewReader(`{"Other":` + strings.Repeat(`{"a":`, 1<<18)), nil},
		{"a small message that becomes large", &bomb, []string{"Content-Encoding", "gzip"}},
		{"no JSON", strings.NewReader("\x00\xff"), nil},
		{"a large header", strings.NewReader("{}"), []string{"X-Large", strings.Repeat("x", 1<<20)}},
		{"another protocol", strings.NewReader("{}"), []string{"Content-Type", "text/xml"}},
	}
	for _, tt := range tests {
		before := n.calls.Load()
		status, text, err := send(t, hostile, api.ProcReport, tt.body, tt.header...)
		if err == nil && status == http.StatusOK || n.calls.Load() != before {
			t.Errorf("%s: %d %.100q, %v; reached a procedure: %v", tt.name, status, text, err, n.calls.Load() != before)
		}
		if _, err := echo(t, honest, n.addr, api.ProcReport); err != nil {
			t.Errorf("another worker after %s: %v", tt.name, err)
		}
	}
}

// endless is spaces without end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return copy(b, bytes.Repeat([]byte{' '}, len(b))), nil }

// A worker has so many calls in progress and no more; others do not notice. What is
// in progress is not ended by the time that a request may take to arrive.
func TestCallsAreBounded(t *testing.T) {
	c := newCluster(t)
	const late = time.Second
	n := start(t, c.node(t, api.RoleManager), func(m *Mux) {
		m.bodyTime = late
		HandleStream(m, api.ProcSession, func(ctx context.Context, _ *ping, send func(*ping) error) error {
			if err := send(&ping{}); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	})
	greedy := NewPool(c.node(t, api.RoleWorker)).Manager(n.addr)
	if _, err := call(t, greedy, api.ProcReport); err != nil { // one connection for all
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	begun, ended := make(chan struct{}, maxCalls), make(chan error, 2*maxCalls)
	session := func() {
		ended <- Stream(ctx, greedy, api.ProcSession, &ping{}, func(*ping) error { begun <- struct{}{}; return nil })
	}
	for range maxCalls {
		go session()
	}
	for range maxCalls {
		select {
		case <-begun:
		case err := <-ended:
			t.Fatal(err)
		}
	}
	go session()
	if err := <-ended; api.CodeOf(err) != api.CodeUnavailable || err == nil || !strings.Contains(err.Error(), "calls in progress") {
		t.Errorf("one too many: %v", err)
	}
	for _, role := range []api.Role{api.RoleWorker, api.RoleManager} {
		if _, err := echo(t, c.node(t, role), n.addr, api.ProcReport); err != nil {
			t.Errorf("another %s: %v", role, err)
		}
	}
	select {
	case err := <-ended:
		t.Errorf("a stream has ended: %v", err)
	case <-time.After(2 * late):
	}
	cancel()
	for range maxCalls {
		<-ended
	}
	for ok := false; !ok; { // once the server has noticed
		_, err := call(t, greedy, api.ProcReport)
		if ok = err == nil; !ok && api.CodeOf(err) != api.CodeUnavailable {
			t.Fatal(err)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), nil)
	greedy := c.node(t, api.RoleWorker)
	target := target{n.addr, "manager.role.orch"}
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	for range maxConnections {
		conn, err := greedy.dialAPI(deadline(t), target)
		if err != nil {
			t.Fatalf("connection %d: %v", len(open), err)
		}
		open = append(open, conn)
	}
	if conn, err := greedy.dialAPI(deadline(t), target); err == nil {
		conn.Close()
		t.Error("one too many is let in")
	}
	for _, role := range []api.Role{api.RoleWorker, api.RoleManager} {
		if _, err := echo(t, c.node(t, role), n.addr, api.ProcReport); err != nil {
			t.Errorf("another %s: %v", role, err)
		}
	}
	open[0].Close()
	for {
		conn, err := greedy.dialAPI(deadline(t), target)
		if err == nil {
			open[0] = conn
			return
		}
		if deadline(t).Err() != nil {
			t.Fatal(err)
		}
	}
}

// Somebody without a certificate who sends the beginning of a request and no more is
// out when the time of a guest is over.
func TestSlowGuest(t *testing.T) {
	c := newCluster(t)
	sec := c.node(t, api.RoleManager)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(l, sec, nil, slog.New(slog.DiscardHandler))
	g.guestTime = 500 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	server := NewServer(NewMux(), sec, slog.New(slog.DiscardHandler))
	srv := server.server(server.guard(server.mux))
	srv.Protocols.SetHTTP2(true)
	srv.ConnContext = withPeer
	done := make(chan error, 2)
	go func() { done <- g.run(ctx) }()
	go func() { done <- serve(ctx, srv, g) }()
	defer func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	}()
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocolAPI}, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The preface, settings, and the head of a frame of headers that never come.
	if _, err := io.WriteString(conn, http2Preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00"+"\x00\x10\x00\x01\x00\x00\x00\x00\x01"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	began := time.Now()
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 15*time.Second {
		t.Errorf("the connection is open after %v: %v", time.Since(began), err)
	}
}

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// A manager that asks a node takes no answer that would fill its memory.
func TestLargeAnswer(t *testing.T) {
	c := newCluster(t)
	hostile := start(t, c.node(t, api.RoleWorker), func(m *Mux) {
		Handle(m, api.ProcClock, func(context.Context, *ping) (*ping, error) {
			return &ping{strings.Repeat("x", maxMessage)}, nil
		})
		HandleStream(m, api.ProcTaskLogs, func(_ context.Context, _ *ping, send func(*ping) error) error {
			return send(&ping{strings.Repeat("x", maxMessage)})
		})
	})
	ap := netip.MustParseAddrPort(hostile.addr)
	client := NewPool(c.node(t, api.RoleManager)).Node(&api.Node{ID: hostile.id(), Addr: ap.Addr(), APIPort: ap.Port()})
	if _, err := call(t, client, api.ProcClock); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a message: %v", err)
	}
	got := 0
	err := Stream(deadline(t), client, api.ProcTaskLogs, &ping{}, func(*ping) error { got++; return nil })
	if err == nil || got != 0 {
		t.Errorf("a stream: %v, %d messages", err, got)
	}
}

func TestQuota(t *testing.T) {
	q := newQuota(2)
	var leaves []func()
	for i, want := range []bool{true, true, false} {
		leave, ok := q.enter("a")
		if ok != want {
			t.Errorf("%d: %v", i, ok)
		}
		leaves = append(leaves, leave)
	}
	if leave, ok := q.enter("b"); !ok {
		t.Error("one counts for another")
	} else {
		leave()
	}
	leaves[0]()
	leaves[0]() // counts once
	if _, ok := q.enter("a"); !ok {
		t.Error("who has left still counts")
	}
	leaves[1]()
	if got := fmt.Sprint(q.open); got != "map[a:1]" {
		t.Errorf("%v", got)
	}
}

// A client that does not read is not waited for where that holds up others.
func TestStreamWithin(t *testing.T) {
	c := newCluster(t)
	ended := make(chan error, 1)
	n := start(t, c.node(t, api.RoleManager), func(m *Mux) {
		HandleStreamWithin(m, "/t/Within", 200*time.Millisecond, func(_ context.Context, _ *ping, send func(*ping) error) error {
			large := &ping{strings.Repeat("x", 1<<20)}
			for {
				if err := send(large); err != nil {
					ended <- err
					return err
				}
			}
		})
	})
	reads := make(chan struct{})
	go func() {
		_ = Stream(deadline(t), NewPool(c.node(t, api.RoleManager)).Manager(n.addr), "/t/Within", &ping{}, func(*ping) error {
			<-reads
			return errors.New("enough")
		})
	}()
	defer close(reads)
	select {
	case <-ended:
	case <-deadline(t).Done():
		t.Error("the server waits for a client that does not read")
	}
}

// What viewers may ask is small, and so is what a user can send who asks it.
func TestUsersQuestionsAreSmall(t *testing.T) {
	c := newCluster(t)
	n := start(t, c.node(t, api.RoleManager), func(m *Mux) {
		m.HandlePrefix("/orch.cluster/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			held, err := Hold(w, r)
			if err != nil {
				WriteError(w, r, err)
				return
			}
			held.Release()
		}))
	})
	user := NewPool(c.node(t, api.RoleUser)).Manager(n.addr)
	large := strings.Repeat(" ", maxGuestMessage) + "{}"
	for procedure, want := range map[string]int{
		api.ProcTasks: http.StatusBadRequest, api.ProcRenew: http.StatusBadRequest, api.ProcScale: http.StatusOK,
	} {
		if status, text, err := send(t, user, procedure, strings.NewReader(large)); status != want || err != nil {
			t.Errorf("%s: %d %q, %v; want %d", procedure, status, text, err, want)
		}
		if status, text, err := send(t, user, procedure, strings.NewReader("{}")); status != http.StatusOK || err != nil {
			t.Errorf("a small %s: %d %q, %v", procedure, status, text, err)
		}
	}
}

// Large requests take room from when they begin to arrive until they are answered,
// whether they are held or read by a procedure: a caller has its share, and all
// together what there is. Small ones are answered meanwhile, and a manager's.
func TestLargeRequestsAreBounded(t *testing.T) {
	c := newCluster(t)
	answer := make(chan struct{})
	n := start(t, c.node(t, api.RoleManager), func(m *Mux) {
		m.HandlePrefix(api.ProcScale, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			held, err := Hold(w, r)
			if err != nil {
				WriteError(w, r, err)
				return
			}
			defer held.Release()
			<-answer
		}))
	})
	taken := func() int64 {
		room.mu.Lock()
		defer room.mu.Unlock()
		return room.all
	}
	waitTaken := func(want int64) {
		t.Helper()
		for ctx := deadline(t); taken() != want; {
			if ctx.Err() != nil {
				t.Fatalf("%d bytes are held, want %d", taken(), want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	large := func() io.Reader { return strings.NewReader(strings.Repeat(" ", maxGuestMessage) + "{}") }
	refused := func(who string, client *Client, procedure string) {
		t.Helper()
		status, text, err := send(t, client, procedure, large())
		if status != http.StatusServiceUnavailable || !strings.Contains(text, "wait a moment") || err != nil {
			t.Errorf("%s, %s: %d %q, %v", who, procedure, status, text, err)
		}
	}

	first := NewPool(c.node(t, api.RoleUser)).Manager(n.addr)
	held := make(chan int, 1)
	go func() {
		status, _, _ := send(t, first, api.ProcScale, strings.NewReader(strings.Repeat(" ", maxMessage)))
		held <- status
	}()
	waitTaken(maxMessage)
	refused("who has used up their share", first, api.ProcScale)
	refused("who has used up their share", first, api.ProcDeploy)
	var half []*io.PipeWriter // bodies that do not go on
	defer func() {
		for _, w := range half {
			w.Close()
		}
	}()
	for i := 1; i < maxHeld/maxMessage; i++ {
		body, w := io.Pipe()
		half = append(half, w)
		client := NewPool(c.node(t, api.RoleUser)).Manager(n.addr)
		go func() { _, _, _ = send(t, client, api.ProcDeploy, body) }()
		if _, err := w.Write(make([]byte, maxGuestMessage+1)); err != nil {
			t.Fatal(err)
		}
		waitTaken(int64(i+1) * maxMessage)
	}
	for _, procedure := range []string{api.ProcScale, api.ProcDeploy} {
		refused("another", NewPool(c.node(t, api.RoleUser)).Manager(n.addr), procedure)
	}
	for _, role := range []api.Role{api.RoleWorker, api.RoleUser} {
		if _, err := call(t, NewPool(c.node(t, role)).Manager(n.addr), api.ProcAdmit); err != nil {
			t.Errorf("a small request of a %s: %v", role, err)
		}
	}
	manager := NewPool(c.node(t, api.RoleManager)).Manager(n.addr)
	if status, text, err := send(t, manager, api.ProcDeploy, large()); status != http.StatusOK || err != nil {
		t.Errorf("a large request of a manager: %d %q, %v", status, text, err)
	}

	close(answer)
	if status := <-held; status != http.StatusOK {
		t.Errorf("the first large request: %d", status)
	}
	for _, w := range half {
		w.Close()
	}
	waitTaken(0)
	if status, text, err := send(t, first, api.ProcScale, large()); status != http.StatusOK || err != nil {
		t.Errorf("after that: %d %q, %v", status, text, err)
	}
}
