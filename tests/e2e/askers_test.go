package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// askers ask for a path again and again, one through each node: over connections
// that they keep, as a proxy or a browser does, or over a new one each time.
type askers struct {
	path    string
	keep    bool
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu       sync.Mutex
	requests int
	opened   int // connections
	cut      int // requests that met the end of their connection and were asked again
	slow     int // requests that took so long that a packet may have been lost
	failed   []attempt
}

const (
	// askEach is the pause between two requests of an asker.
	askEach = 10 * time.Millisecond
	// askTime is what a request gets, however busy the machine is.
	askTime = 20 * time.Second
	// slowTime is when a SYN that was lost is sent again, the first time.
	slowTime = time.Second
)

func (c *cluster) startAskers(nodes []string, port int, path string, keep bool) *askers {
	ctx, cancel := context.WithCancel(context.Background())
	k := &askers{path: path, keep: keep, cancel: cancel}
	for _, addr := range c.addrs(nodes, port) {
		k.workers.Go(func() { k.run(ctx, c.outside(), addr) })
	}
	return k
}

func (k *askers) end() {
	k.cancel()
	k.workers.Wait()
}

// errCut is the end of a kept connection that came instead of an answer. The
// server cannot have acted on what it never read, and a client asks again over
// another connection (RFC 9112, section 9.3.1).
var errCut = errors.New("the connection ended before the answer began")

func (k *askers) run(ctx context.Context, from vantage, addr string) {
	var conn net.Conn
	var reader *bufio.Reader
	drop := func() {
		if conn != nil {
			conn.Close()
			conn = nil
		}
	}
	defer drop()
	for ctx.Err() == nil {
		at := time.Now()
		kept := conn != nil
		var err error
		if !kept {
			dial, cancel := context.WithTimeout(ctx, askTime)
			conn, err = from.dial(dial, "tcp", addr)
			cancel()
			if err != nil {
				conn = nil
			} else {
				reader = bufio.NewReader(conn)
				k.mu.Lock()
				k.opened++
				k.mu.Unlock()
			}
		}
		if err == nil {
			err = ask(conn, reader, addr, k.path)
		}
		if ctx.Err() != nil {
			return
		}
		k.mu.Lock()
		k.requests++
		if time.Since(at) > slowTime {
			k.slow++
		}
		switch {
		case err != nil && kept && errors.Is(err, errCut):
			k.requests-- // it is asked again
			k.cut++
		case err != nil:
			k.failed = append(k.failed, attempt{at: at, took: time.Since(at), addr: addr, err: err})
		}
		k.mu.Unlock()
		if err != nil || !k.keep {
			drop()
		}
		select {
		case <-ctx.Done():
		case <-time.After(askEach):
		}
	}
}

// ask makes one request on an open connection.
func ask(conn net.Conn, reader *bufio.Reader, addr, path string) error {
	if err := conn.SetDeadline(time.Now().Add(askTime)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, addr); err != nil {
		return fmt.Errorf("%w: %w", errCut, err)
	}
	if _, err := reader.Peek(1); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return err
		}
		return fmt.Errorf("%w: %w", errCut, err)
	}
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

func (k *askers) noFailures(t *testing.T, what string, start time.Time) {
	t.Helper()
	t.Logf("%s: %d requests over %d connections, %d failed; %d were asked again because their connection had ended; %d took more than %v",
		what, k.requests, k.opened, len(k.failed), k.cut, k.slow, slowTime)
	describe(t, what, k.failed, start)
}
