package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
	"github.com/orch-dev/orch/pkg/netdev"
)

// vantage is a network namespace that the tests connect from.
type vantage struct{ netns string }

// outside is the client of the lab.
func (c *cluster) outside() vantage { return c.on(lab.ClientName) }

// on is a node, or the client.
func (c *cluster) on(member string) vantage {
	path, err := c.Namespace(member)
	if err != nil {
		panic(err) // the test names a node that no lab has
	}
	return vantage{path}
}

// inside is a task.
func (c *cluster) inside(t *testing.T, task api.TaskEntry) vantage {
	t.Helper()
	path, err := c.engine.netns(t.Context(), task.Status.ContainerID)
	if err != nil {
		t.Fatal(err)
	}
	return vantage{path}
}

// dial connects; the address is numeric.
func (v vantage) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	err := v.in(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// in runs fn there.
func (v vantage) in(fn func() error) error { return netdev.Do(v.netns, fn) }

// http is a client that makes a new connection for each request, and gives each
// of them so much time in all.
func (v vantage) http(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true, DialContext: v.dial}}
}

// fetch gets the body of a URL that answers 200.
func fetch(client *http.Client, url string) ([]byte, error) {
	resp, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK {
		return body, fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return body, nil
}

// get decodes what a URL answers.
func get[T any](client *http.Client, url string) (T, error) {
	var value T
	body, err := fetch(client, url)
	if err == nil {
		err = json.Unmarshal(body, &value)
	}
	return value, err
}

// identity is what replicas of the blog and of the probe say of themselves and
// of whom they see asking.
type identity struct {
	Replica string `json:"replica"`
	Version string `json:"version"`
	Client  string `json:"client"`
}

// requestTime is what one request gets where nothing is broken: enough for
// several retransmissions.
const requestTime = 5 * time.Second

// whoami asks who answers at an address, over TCP.
func (v vantage) whoami(addr string) (identity, error) {
	return get[identity](v.http(requestTime), "http://"+addr+"/whoami")
}

// whoamiUDP asks the same over UDP, with one datagram.
func (v vantage) whoamiUDP(ctx context.Context, addr string) (identity, error) {
	var id identity
	conn, err := v.dial(ctx, "udp", addr)
	if err != nil {
		return id, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return id, err
	}
	if _, err := conn.Write([]byte("who?")); err != nil {
		return id, err
	}
	buffer := make([]byte, 2048)
	n, err := conn.Read(buffer)
	if err != nil {
		return id, err
	}
	return id, json.Unmarshal(buffer[:n], &id)
}

// tally asks n times who answers, each time over a new connection, and counts
// by replica.
func (v vantage) tally(ask func() (identity, error), n int) (map[string]int, error) {
	const parallel = 8
	var mu sync.Mutex
	var errs []error
	count := map[string]int{}
	todo := make(chan struct{})
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for range todo {
				id, err := ask()
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
				} else {
					count[id.Replica]++
				}
				mu.Unlock()
			}
		})
	}
	for range n {
		todo <- struct{}{}
	}
	close(todo)
	workers.Wait()
	if len(errs) > 0 {
		return count, fmt.Errorf("%d of %d requests failed, one of them: %w", len(errs), n, errs[0])
	}
	return count, nil
}

// balanced checks that each of the tasks got its part of n connections.
func balanced(t *testing.T, where string, count map[string]int, tasks []api.TaskEntry, low, high float64) {
	t.Helper()
	total := 0
	for _, n := range count {
		total += n
	}
	shares := ""
	for _, task := range tasks {
		share := float64(count[replica(task)]) / float64(total)
		shares += fmt.Sprintf(" %s (%s) %.1f %%", task.Name(), task.NodeName, 100*share)
		if share < low || share > high {
			t.Errorf("%s: %s got %.1f %% of %d connections, want %.0f to %.0f %%", where, task.Name(), 100*share, total, 100*low, 100*high)
		}
	}
	t.Logf("%s, %d connections:%s", where, total, shares)
	if len(count) != len(tasks) {
		t.Errorf("%s: %d replicas answered, want %d: %v", where, len(count), len(tasks), count)
	}
}

// attempt is one request over a new connection.
type attempt struct {
	at   time.Time // when it began
	addr string
	id   identity
	err  error
}

// load makes attempts at a steady pace, whatever becomes of them.
type load struct {
	stop     chan struct{}
	done     chan struct{}
	mu       sync.Mutex
	attempts []attempt
}

// attemptTime is what an attempt gets: less than the time until a SYN that was
// lost is sent again (1 s), so that each tells of one moment.
const attemptTime = 900 * time.Millisecond

// startLoad asks the addresses in turn who answers.
func (v vantage) startLoad(addrs []string, every time.Duration) *load {
	l := &load{stop: make(chan struct{}), done: make(chan struct{})}
	client := v.http(attemptTime)
	go func() {
		defer close(l.done)
		var running sync.WaitGroup
		defer running.Wait()
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-l.stop:
				return
			case <-ticker.C:
			}
			running.Go(func() {
				a := attempt{at: time.Now(), addr: addrs[i%len(addrs)]}
				a.id, a.err = get[identity](client, "http://"+a.addr+"/whoami")
				l.mu.Lock()
				defer l.mu.Unlock()
				l.attempts = append(l.attempts, a)
			})
		}
	}()
	return l
}

// count is the number of attempts that have ended.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.attempts)
}

// end stops the load and returns all that was attempted.
func (l *load) end() []attempt {
	close(l.stop)
	<-l.done
	return l.attempts
}

// failures are the attempts that failed.
func failures(attempts []attempt) []attempt {
	var failed []attempt
	for _, a := range attempts {
		if a.err != nil {
			failed = append(failed, a)
		}
	}
	return failed
}

// noFailures fails the test if any attempt failed.
func noFailures(t *testing.T, what string, attempts []attempt) {
	t.Helper()
	failed := failures(attempts)
	t.Logf("%s: %d new connections, %d failed", what, len(attempts), len(failed))
	for i, a := range failed {
		if i == 5 {
			t.Errorf("and %d more", len(failed)-i)
			break
		}
		t.Errorf("%s: %v after the first: %v", what, a.at.Sub(attempts[0].at).Round(time.Millisecond), a.err)
	}
	if len(attempts) == 0 {
		t.Errorf("%s: no connection was attempted", what)
	}
}

// stream is a transfer that goes on until it is ended.
type stream struct {
	replica string
	body    io.ReadCloser
	done    chan struct{}

	bytes   int64
	longest time.Duration // between two reads
	err     error
}

// startStream begins a transfer from the replica for which want is true, by
// connecting until it answers.
func (v vantage) startStream(addr string, want func(replica string) bool) (*stream, error) {
	const tries = 100
	client := v.http(0)
	query := url.Values{"size": {"32768"}, "every": {"5ms"}}
	for range tries {
		resp, err := client.Get("http://" + addr + "/drip?" + query.Encode())
		if err != nil {
			return nil, err
		}
		s := &stream{replica: resp.Header.Get("X-Replica"), body: resp.Body, done: make(chan struct{})}
		if !want(s.replica) {
			resp.Body.Close()
			continue
		}
		go s.read()
		return s, nil
	}
	return nil, fmt.Errorf("no such replica answered at %s in %d tries", addr, tries)
}

func (s *stream) read() {
	defer close(s.done)
	buffer := make([]byte, 64<<10)
	for last := time.Now(); ; {
		n, err := s.body.Read(buffer)
		now := time.Now()
		s.bytes += int64(n)
		s.longest = max(s.longest, now.Sub(last))
		last = now
		if err != nil {
			s.err = err
			return
		}
	}
}

// end stops the transfer, and reports an error if it was broken or stood still.
func (s *stream) end(stall time.Duration) error {
	select {
	case <-s.done:
		return fmt.Errorf("the transfer broke after %d bytes: %w", s.bytes, s.err)
	default:
	}
	s.body.Close()
	<-s.done
	if s.longest > stall {
		return fmt.Errorf("the transfer stood still for %v", s.longest.Round(time.Millisecond))
	}
	if s.bytes == 0 {
		return errors.New("nothing was transferred")
	}
	return nil
}
