package metrics

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orch-dev/orch/pkg/dataplane"
)

// So many connections are open and no more; once one is closed there is room.
func TestConnectionsAreBounded(t *testing.T) {
	addr := serve(t, sources())
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	var open []net.Conn
	for range maxConnections {
		open = append(open, dial())
	}
	more := dial()
	_ = more.SetReadDeadline(time.Now().Add(4 * time.Second)) // a silent one is closed later
	if _, err := more.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	_ = open[0].Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for limit := time.Now().Add(20 * time.Second); ; {
		resp, err := client.Get("http://" + addr + "/metrics")
		if err == nil {
			resp.Body.Close()
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("after one was closed: %v", err)
		}
	}
}

// stuck is a data plane that counts when it is told to.
type stuck struct{ asked, count chan struct{} }

func (s stuck) Stats() (dataplane.Stats, error) {
	s.asked <- struct{}{}
	<-s.count
	return dataplane.Stats{}, nil
}

func TestScrapesAreBounded(t *testing.T) {
	src, s := sources(), stuck{make(chan struct{}, 2*maxScrapes), make(chan struct{})}
	src.Dataplane = s
	url := "http://" + serve(t, src) + "/metrics"
	statuses := make(chan int, 2*maxScrapes)
	get := func() {
		resp, err := http.Get(url)
		if err != nil {
			t.Error(err)
			statuses <- 0
			return
		}
		resp.Body.Close()
		statuses <- resp.StatusCode
	}
	for range maxScrapes {
		go get()
		<-s.asked
	}
	go get()
	select {
	case status := <-statuses:
		if status != http.StatusServiceUnavailable {
			t.Errorf("one too many: %d", status)
		}
	case <-s.asked:
		t.Error("one too many is answered")
	}
	close(s.count)
	for range maxScrapes {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("one of those that are possible: %d", status)
		}
	}
}

// Who asks while the data plane does not answer is told so.
func TestScrapesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, s, l := sources(), stuck{make(chan struct{}, 1), make(chan struct{})}, make(piped)
		src.Dataplane = s
		serveOn(t, l, src)
		ours, theirs := net.Pipe()
		defer ours.Close()
		defer close(s.count)
		l <- theirs
		if _, err := io.WriteString(ours, "GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		_ = ours.SetReadDeadline(time.Now().Add(scrapeTime + time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(ours), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Error(resp.Status)
		}
	})
}

// piped is a listener of connections in memory.
type piped chan net.Conn

func (p piped) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p piped) Close() error   { close(p); return nil }
func (p piped) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// Who scrapes once and says no more is out after a while, like who says nothing.
func TestIdleConnectionsAreClosed(t *testing.T) {
	for name, request := range map[string]string{
		"silent": "", "half a request": "GET /metrics", "a body that does not come": "GET /metrics HTTP/1.1\r\nHost: n\r\nContent-Length: 9\r\n\r\n",
		"idle": "GET /metrics HTTP/1.1\r\nHost: n\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := make(piped)
				serveOn(t, l, sources())
				ours, theirs := net.Pipe()
				defer ours.Close()
				l <- theirs
				if _, err := io.WriteString(ours, request); err != nil {
					t.Fatal(err)
				}
				_ = ours.SetReadDeadline(time.Now().Add(2 * idleTime))
				if _, err := io.Copy(io.Discard, bufio.NewReader(ours)); err != nil {
					t.Errorf("the connection is open after %v: %v", 2*idleTime, err)
				}
			})
		})
	}
}
