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
	"slices"
	"sync"
	"sync/atomic"
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

// whoami asks who answers at an address, over TCP. An error says from where it was
// asked, for `orch net flows` to be asked what became of it.
func (v vantage) whoami(addr string) (identity, error) {
	var from atomic.Value
	from.Store("not connected")
	client := &http.Client{Timeout: requestTime, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := v.dial(ctx, network, addr)
			if err == nil {
				from.Store("connected from " + conn.LocalAddr().String())
			}
			return conn, err
		},
	}}
	id, err := get[identity](client, "http://"+addr+"/whoami")
	if err != nil {
		err = fmt.Errorf("%w (%v, at %s)", err, from.Load(), time.Now().Format(time.StampMilli))
	}
	return id, err
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
		return count, fmt.Errorf("%d of %d requests failed: %w", len(errs), n, errors.Join(errs[:min(len(errs), 5)]...))
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
	took time.Duration
	addr string
	id   identity
	err  error
}

// load makes attempts at a steady pace, whatever becomes of them. Beside them it
// connects as often to the control, a container that has nothing to do with orch:
// where that is slow too, the machine was busy with something else.
type load struct {
	stop     chan struct{}
	done     chan struct{}
	mu       sync.Mutex
	attempts []attempt
	control  []attempt
}

const (
	// attemptTime is what an attempt gets: less than the time until a SYN that
	// was lost is sent again (1 s), so that each tells of one moment.
	attemptTime = 900 * time.Millisecond
	// loadEach is the pace of attempts.
	loadEach = 20 * time.Millisecond
	// slowControl is what the control never takes on a machine that has time.
	slowControl = 100 * time.Millisecond
)

// startLoad asks the nodes in turn who answers at a published port.
func (c *cluster) startLoad(t *testing.T, nodes []string, port int) *load {
	t.Helper()
	l := &load{stop: make(chan struct{}), done: make(chan struct{})}
	addrs := c.addrs(nodes, port)
	client, control := c.outside().http(attemptTime), c.control.http(attemptTime)
	try := func(client *http.Client, addr string, results *[]attempt) {
		a := attempt{at: time.Now(), addr: addr}
		a.id, a.err = get[identity](client, "http://"+addr+"/whoami")
		a.took = time.Since(a.at)
		l.mu.Lock()
		defer l.mu.Unlock()
		*results = append(*results, a)
	}
	go func() {
		defer close(l.done)
		var running sync.WaitGroup
		defer running.Wait()
		ticker := time.NewTicker(loadEach)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-l.stop:
				return
			case <-ticker.C:
			}
			running.Go(func() { try(client, addrs[i%len(addrs)], &l.attempts) })
			running.Go(func() { try(control, controlAddr, &l.control) })
		}
	}()
	await(t, patience, "the load runs", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if got := len(l.attempts); got < 50 {
			return fmt.Errorf("%d attempts have ended", got)
		}
		return nil
	})
	return l
}

// end stops the load.
func (l *load) end() {
	close(l.stop)
	<-l.done
}

// failed returns the attempts that failed while the machine had time for them.
func (l *load) failed(t *testing.T) []attempt {
	t.Helper()
	var failed []attempt
	excused := 0
	for _, a := range l.attempts {
		switch {
		case a.err == nil:
		case l.busy(a.at):
			excused++
		default:
			failed = append(failed, a)
		}
	}
	if excused > 0 {
		t.Logf("%d attempts are not counted, because the machine was busy", excused)
	}
	slices.SortFunc(failed, func(a, b attempt) int { return a.at.Compare(b.at) })
	return failed
}

// busy reports whether the control was slow at about the same time.
func (l *load) busy(at time.Time) bool {
	return slices.ContainsFunc(l.control, func(control attempt) bool {
		return control.slow() && control.at.Sub(at).Abs() < attemptTime
	})
}

func (a attempt) slow() bool { return a.err != nil || a.took > slowControl }

// busyMachine reports whether the control was slow so often that times say
// nothing about what is tested.
func (l *load) busyMachine() bool {
	slow := 0
	for _, a := range l.control {
		if a.slow() {
			slow++
		}
	}
	return slow*100 > len(l.control)
}

// noFailures fails the test if any attempt failed.
func (l *load) noFailures(t *testing.T, what string, fault time.Time) {
	t.Helper()
	failed := l.failed(t)
	t.Logf("%s: %d new connections, %d failed", what, len(l.attempts), len(failed))
	describe(t, what, failed, fault)
}

// describe reports failed attempts as errors.
func describe(t *testing.T, what string, failed []attempt, fault time.Time) {
	t.Helper()
	for i, a := range failed {
		if i == 5 {
			last := failed[len(failed)-1]
			t.Errorf("%s: and %d more until %v after the fault", what, len(failed)-i, last.at.Sub(fault).Round(time.Millisecond))
			break
		}
		t.Errorf("%s: a connection to %s failed that began %v after the fault: %v", what, a.addr, a.at.Sub(fault).Round(time.Millisecond), a.err)
	}
}

// cutOff fails the test if a connection that began later than limit after the
// fault failed, or one that had ended before it.
func (l *load) cutOff(t *testing.T, fault time.Time, limit time.Duration) {
	t.Helper()
	failed := l.failed(t)
	last := time.Duration(0)
	var wrong []attempt
	for _, a := range failed {
		offset := a.at.Sub(fault)
		last = max(last, offset)
		if offset < -attemptTime || offset > limit {
			wrong = append(wrong, a)
		}
	}
	t.Logf("%d new connections, %d failed, the last of them began %.2f s after the fault", len(l.attempts), len(failed), last.Seconds())
	describe(t, "too late", wrong, fault)
}

// stream is a transfer that goes on until it is ended.
type stream struct {
	replica string
	body    io.ReadCloser
	done    chan struct{}

	bytes   int64
	longest time.Duration // between two reads
	when    time.Time     // the longest pause ended
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
		if pause := now.Sub(last); pause > s.longest {
			s.longest, s.when = pause, now
		}
		last = now
		if err != nil {
			s.err = err
			return
		}
	}
}

// end stops the transfer, and reports an error if it was broken.
func (s *stream) end() error {
	select {
	case <-s.done:
		return fmt.Errorf("the transfer broke after %d bytes: %w", s.bytes, s.err)
	default:
	}
	s.body.Close()
	<-s.done
	if s.bytes == 0 {
		return errors.New("nothing was transferred")
	}
	return nil
}
