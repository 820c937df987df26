package membership_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/membership"
)

const limit = 20 * time.Second

var key = bytes.Repeat([]byte{7}, 32)

// ring is a group of members on loopback that know each other's addresses.
type ring struct {
	t  *testing.T
	mu sync.Mutex
	// addrs are what every member's peers function returns.
	addrs map[api.NodeID]string
}

type member struct {
	*membership.Members
	id   api.NodeID
	addr string
	kill func() // stops it without a word and waits for that
}

func newRing(t *testing.T) *ring { return &ring{t: t, addrs: map[api.NodeID]string{}} }

func (r *ring) peers() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.addrs))
}

func (r *ring) start(id api.NodeID, port int, key []byte) *member {
	r.t.Helper()
	m, err := membership.New(membership.Config{
		ID: id, BindAddr: "127.0.0.1", Port: port, Keys: [][]byte{key}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, r.peers) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("run %s: %v", id, err)
		}
	})
	r.t.Cleanup(stop)
	within, cancelWithin := context.WithTimeout(ctx, limit)
	defer cancelWithin()
	addr, err := m.Addr(within)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.addrs[id] = addr
	r.mu.Unlock()
	return &member{Members: m, id: id, addr: addr, kill: stop}
}

// waitAlive waits until m's view is want.
func waitAlive(t *testing.T, m *member, want map[api.NodeID]bool) {
	t.Helper()
	if err := awaitAlive(m, want); err != nil {
		t.Fatal(err)
	}
}

func awaitAlive(m *member, want map[api.NodeID]bool) error {
	timeout := time.After(limit)
	for {
		changed := m.Changed()
		diff := cmp.Diff(want, m.Alive())
		if diff == "" {
			return nil
		}
		select {
		case <-changed:
		case <-timeout:
			return fmt.Errorf("%s: view after %v (-want +got):\n%s", m.id, limit, diff)
		}
	}
}

func (r *ring) startAll(n int) ([]*member, map[api.NodeID]bool) {
	r.t.Helper()
	var all []*member
	want := map[api.NodeID]bool{}
	for i := range n {
		m := r.start(api.NodeID(fmt.Sprintf("node%d", i)), 0, key)
		all = append(all, m)
		want[m.id] = true
	}
	for _, m := range all {
		waitAlive(r.t, m, want)
	}
	return all, want
}

func TestDeadNodeIsKnownToAllAndComesBack(t *testing.T) {
	r := newRing(t)
	all, want := r.startAll(5)
	dead, rest := all[4], all[:4]

	began := time.Now()
	dead.kill()
	want[dead.id] = false
	for _, m := range rest {
		waitAlive(t, m, want)
	}
	t.Logf("all four know of the death after %v", time.Since(began).Round(time.Millisecond))

	var port int
	if _, err := fmt.Sscanf(dead.addr, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	all[4] = r.start(dead.id, port, key)
	want[dead.id] = true
	for _, m := range all {
		waitAlive(t, m, want)
	}
	t.Logf("all five know of its return after %v", time.Since(began).Round(time.Millisecond))
}

func TestLastOfThreeNoticesBothDeaths(t *testing.T) {
	r := newRing(t)
	all, want := r.startAll(3)
	began := time.Now()
	all[1].kill()
	all[2].kill()
	want[all[1].id], want[all[2].id] = false, false
	waitAlive(t, all[0], want)
	t.Logf("known after %v", time.Since(began).Round(time.Millisecond))
}

func TestLeaveIsKnownAtOnce(t *testing.T) {
	r := newRing(t)
	all, want := r.startAll(3)
	if err := all[2].Leave(limit); err != nil {
		t.Fatal(err)
	}
	want[all[2].id] = false
	for _, m := range all[:2] {
		waitAlive(t, m, want)
	}
}

func TestStrangerWithoutTheKeyStaysOutside(t *testing.T) {
	r := newRing(t)
	all, want := r.startAll(2)
	stranger := r.start("stranger", 0, bytes.Repeat([]byte{8}, 32))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := stranger.Join(ctx, []string{all[0].addr, all[1].addr}); err == nil {
		t.Error("a node with another key could join")
	}
	waitAlive(t, stranger, map[api.NodeID]bool{"stranger": true})
	for _, m := range all {
		if diff := cmp.Diff(want, m.Alive()); diff != "" {
			t.Errorf("%s: view (-want +got):\n%s", m.id, diff)
		}
	}
}

func TestHintReachesEveryOtherNodeOnce(t *testing.T) {
	r := newRing(t)
	all, _ := r.startAll(5)
	tasks := []api.TaskID{"aaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbb"}
	began := time.Now()
	for _, task := range tasks {
		all[0].Broadcast(task)
		all[0].Broadcast(task) // says nothing new
	}
	for _, m := range all[1:] {
		got := map[api.TaskID]int{}
		for range tasks {
			select {
			case task := <-m.Hints():
				got[task]++
			case <-time.After(limit):
				t.Fatalf("%s: has only the hints %v", m.id, got)
			}
		}
		if diff := cmp.Diff(map[api.TaskID]int{tasks[0]: 1, tasks[1]: 1}, got); diff != "" {
			t.Errorf("%s: hints (-want +got):\n%s", m.id, diff)
		}
	}
	t.Logf("known to all after %v", time.Since(began).Round(100*time.Microsecond))
	for _, m := range all {
		select {
		case task := <-m.Hints():
			t.Errorf("%s: hint of %s more than once, or at its sender", m.id, task)
		default:
		}
	}
}

func TestNewRefusesAConfigThatCannotWork(t *testing.T) {
	for name, cfg := range map[string]membership.Config{
		"no ID":       {BindAddr: "127.0.0.1", Keys: [][]byte{key}},
		"no key":      {ID: "a", BindAddr: "127.0.0.1"},
		"short key":   {ID: "a", BindAddr: "127.0.0.1", Keys: [][]byte{key, key[:15]}},
		"bad address": {ID: "a", BindAddr: "localhost", Keys: [][]byte{key}},
	} {
		if _, err := membership.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Who is a manager is known to the others, also that it has become one or ceased to be.
func TestManagersAreKnown(t *testing.T) {
	r := newRing(t)
	all, _ := r.startAll(3)
	await := func(m *member, want ...string) {
		t.Helper()
		within := time.Now().Add(limit)
		for diff := "-"; diff != ""; time.Sleep(10 * time.Millisecond) {
			if diff = cmp.Diff(want, m.Managers(), cmpopts.EquateEmpty()); diff != "" && time.Now().After(within) {
				t.Fatalf("%s: managers after %v (-want +got):\n%s", m.id, limit, diff)
			}
		}
	}
	await(all[2])
	all[0].SetManager(netip.MustParseAddrPort("192.0.2.1:2377"))
	all[1].SetManager(netip.MustParseAddrPort("[2001:db8::1]:2377"))
	await(all[2], "192.0.2.1:2377", "[2001:db8::1]:2377")
	await(all[0], "[2001:db8::1]:2377")
	all[1].SetManager(netip.AddrPort{})
	await(all[2], "192.0.2.1:2377")
	all[0].kill()
	await(all[2])
}
