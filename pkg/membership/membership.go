// Package membership tells which nodes are alive, by gossip among all of them,
// and carries hints of endpoints that died. It holds nothing that could be wrong
// for long: what it says may take a backend out of service, never put one in.
package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/orch-dev/orch/pkg/api"
)

// Config says who the node is and where it gossips.
type Config struct {
	ID       api.NodeID
	BindAddr string // IPv4 address
	Port     int    // UDP and TCP; 0 takes a free one
	// AdvertiseAddr is the IPv4 address that others use; empty: BindAddr.
	AdvertiseAddr string
	// Keys encrypt all gossip, 16, 24 or 32 bytes each: see Members.SetKeys.
	Keys [][]byte
	Log  *slog.Logger
}

const (
	// rejoinInterval is how often nodes that should be members and are not
	// heard of are called, rejoinAtOnce how many of them at a time.
	rejoinInterval = time.Second
	rejoinAtOnce   = 3
	// streamTimeout bounds one call.
	streamTimeout = time.Second
	// reopenPatience is how long nodes count as alive that are not heard of again
	// since the gossip was begun anew, with another timing.
	reopenPatience = 3 * time.Second
)

// Members is this node's part in the gossip. All methods are safe for
// concurrent use.
type Members struct {
	cfg     Config
	bind    netip.Addr
	hints   hints
	role    role
	ring    *memberlist.Keyring
	started chan struct{} // closed when there is a list
	list    atomic.Pointer[memberlist.Memberlist]

	mu      sync.Mutex
	alive   map[api.NodeID]bool
	peers   map[api.NodeID]peer // those alive; memberlist's own records change while they are read
	changed chan struct{}
	left    bool
	// reopened is when the gossip was begun anew, until who has not been heard of
	// since, in unheard, is forgotten.
	reopened time.Time
	unheard  map[api.NodeID]bool
}

// New returns a member that does nothing until Run.
func New(cfg Config) (*Members, error) {
	if cfg.ID == "" {
		return nil, errors.New("gossip: no node ID")
	}
	bind, err := netip.ParseAddr(cfg.BindAddr)
	if err == nil && !bind.Is4() {
		err = fmt.Errorf("%s is not an IPv4 address", bind)
	}
	if err != nil {
		return nil, fmt.Errorf("gossip: bind address: %w", err)
	}
	ring, err := newKeyring(cfg.Keys)
	if err != nil {
		return nil, err
	}
	if cfg.AdvertiseAddr == "" {
		cfg.AdvertiseAddr = cfg.BindAddr
	}
	m := &Members{
		cfg:     cfg,
		bind:    bind,
		ring:    ring,
		started: make(chan struct{}),
		alive:   map[api.NodeID]bool{},
		peers:   map[api.NodeID]peer{},
		changed: make(chan struct{}),
	}
	m.hints.init(cfg.Log, m.size)
	return m, nil
}

// Run takes part in the gossip until ctx ends, and is called once. It keeps
// calling the nodes whose gossip addresses (host:port) peers returns and that
// are not heard of: at the start, after a restart, after a partition.
//
// When it ends it tells nobody, so that a daemon that restarts within a second
// is not missed. A node that goes for good calls Leave first.
func (m *Members) Run(ctx context.Context, peers func() []string) error {
	known := peers()
	timing := TimingFor(len(known) + 1)
	if err := m.open(timing, m.cfg.Port); err != nil {
		return err
	}
	close(m.started)

	tick := time.NewTicker(rejoinInterval)
	defer tick.Stop()
	for {
		if next := TimingFor(len(known) + 1); next != timing && !m.hasLeft() {
			timing = next
			if err := m.reopen(timing); err != nil {
				return err
			}
		}
		m.rejoin(known)
		select {
		case <-tick.C:
			m.forget(time.Now())
			known = peers()
		case <-ctx.Done():
			if err := m.list.Load().Shutdown(); err != nil {
				return fmt.Errorf("stop gossip: %w", err)
			}
			return nil
		}
	}
}

// open begins to gossip.
func (m *Members) open(timing Timing, port int) error {
	trans, err := listen(netip.AddrPortFrom(m.bind, uint16(port)), m.cfg.Log)
	if err != nil {
		return fmt.Errorf("gossip on %s port %d: %w", m.cfg.BindAddr, port, err)
	}
	list, err := memberlist.Create(m.config(timing, trans))
	if err != nil {
		return errors.Join(fmt.Errorf("gossip on %s port %d: %w", m.cfg.BindAddr, port, err), trans.Shutdown())
	}
	m.list.Store(list)
	return nil
}

// reopen begins to gossip anew, with another timing. The others do not miss it, and
// it does not miss them: who was alive is called again, and counts as alive for as
// long as that takes.
func (m *Members) reopen(timing Timing) error {
	old := m.list.Load()
	if err := old.Shutdown(); err != nil {
		return fmt.Errorf("gossip with another timing: %w", err)
	}
	m.mu.Lock()
	m.unheard = make(map[api.NodeID]bool)
	for id := range m.peers {
		m.unheard[id] = true
	}
	m.reopened = time.Now()
	m.mu.Unlock()
	m.cfg.Log.Info("the size of the cluster has another timing of gossip", "probe", timing.Probe)
	return m.open(timing, int(old.LocalNode().Port))
}

// forget takes for dead who was not heard of again since the gossip was begun anew.
func (m *Members) forget(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reopened.IsZero() || now.Sub(m.reopened) < reopenPatience {
		return
	}
	m.reopened = time.Time{}
	for id := range m.unheard {
		m.note(id, false, peer{})
	}
}

func (m *Members) config(timing Timing, trans *transport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = string(m.cfg.ID)
	c.Transport = trans
	c.AdvertiseAddr, c.AdvertisePort = m.cfg.AdvertiseAddr, int(trans.port())
	c.Keyring = m.ring
	timing.set(c)
	c.TCPTimeout = streamTimeout
	// Messages are small, and each would cost the compressor's tables.
	c.EnableCompression = false
	// A node that comes back with another address takes its name over once
	// its former self is dead.
	c.DeadNodeReclaimTime = time.Second
	c.Logger = log.New(debugLog{m.cfg.Log}, "", 0)
	c.Events = events{m}
	c.Delegate = delegate{&m.hints, &m.role}
	return c
}

// rejoin calls some of the peers that are not alive, or were not heard of lately.
func (m *Members) rejoin(peers []string) {
	if m.hasLeft() {
		return
	}
	here := map[string]bool{}
	m.mu.Lock()
	for id, peer := range m.peers {
		here[peer.addr] = !m.unheard[id]
	}
	m.mu.Unlock()
	var missing []string
	for _, p := range peers {
		if !here[p] {
			missing = append(missing, p)
		}
	}
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	var calls sync.WaitGroup
	for _, addr := range missing[:min(len(missing), rejoinAtOnce)] {
		calls.Go(func() {
			if _, err := m.list.Load().Join([]string{addr}); err != nil {
				m.cfg.Log.Debug("gossip: no answer", "addr", addr, "err", err)
			}
		})
	}
	calls.Wait()
}

// Join calls nodes by their gossip addresses (host:port) and returns when one of
// them has answered; Run must be running. It is for the first contact: Run
// itself keeps up what its peers function names.
func (m *Members) Join(ctx context.Context, addrs []string) error {
	if err := m.wait(ctx); err != nil {
		return fmt.Errorf("join gossip: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := m.list.Load().Join(addrs)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("join gossip: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("join gossip: %w", context.Cause(ctx))
	}
}

// Leave tells the others that this node goes for good, and waits until the word
// is out or the timeout is over.
func (m *Members) Leave(timeout time.Duration) error {
	m.mu.Lock()
	m.left = true
	m.mu.Unlock()
	select {
	case <-m.started:
	default:
		return nil
	}
	if err := m.list.Load().Leave(timeout); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

func (m *Members) hasLeft() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}

// Addr is the address that others gossip with, once Run listens.
func (m *Members) Addr(ctx context.Context) (string, error) {
	if err := m.wait(ctx); err != nil {
		return "", fmt.Errorf("gossip address: %w", err)
	}
	return m.list.Load().LocalNode().Address(), nil
}

func (m *Members) wait(ctx context.Context) error {
	select {
	case <-m.started:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Alive returns the nodes heard of since Run began, this one included: true for
// those believed alive, false for those believed dead and those that left. Of a
// node that is not in it, gossip says nothing: only false is a reason to take a
// node's backends out. The caller owns the map.
func (m *Members) Alive() map[api.NodeID]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.alive)
}

// Changed returns a channel that is closed when Alive or Managers next change. Take it
// before what it is about.
func (m *Members) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}

// size is about how many nodes there are.
func (m *Members) size() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.alive)
}

// here notes a node that is alive.
func (m *Members) here(n *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note(api.NodeID(n.Name), true, newPeer(n))
}

// gone notes a node that is not alive.
func (m *Members) gone(n *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note(api.NodeID(n.Name), false, peer{})
}

// note notes whether a node is alive, and as what, under mu.
func (m *Members) note(id api.NodeID, alive bool, as peer) {
	delete(m.unheard, id)
	if was, known := m.alive[id]; known && was == alive && m.peers[id] == as {
		return
	}
	m.alive[id], m.peers[id] = alive, as
	if !alive {
		delete(m.peers, id)
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// events takes memberlist's word on who is alive.
type events struct{ *Members }

func (e events) NotifyJoin(n *memberlist.Node)   { e.here(n) }
func (e events) NotifyUpdate(n *memberlist.Node) { e.here(n) }
func (e events) NotifyLeave(n *memberlist.Node)  { e.gone(n) }

// delegate is what memberlist asks and tells beside who is alive.
type delegate struct {
	*hints
	*role
}

// debugLog writes memberlist's log lines, whatever level they claim, as debug
// messages: what matters of them shows in Alive.
type debugLog struct{ log *slog.Logger }

func (w debugLog) Write(p []byte) (int, error) {
	line := bytes.TrimSpace(p)
	if i := bytes.Index(line, []byte("memberlist: ")); i >= 0 {
		line = line[i+len("memberlist: "):]
	}
	w.log.Debug("gossip: " + string(line))
	return len(p), nil
}

// Ping sends one datagram of gossip to the node whose gossip address is addr,
// and waits for the answer, which is there within a second or not at all.
func (m *Members) Ping(id api.NodeID, addr netip.AddrPort) error {
	select {
	case <-m.started:
	default:
		return errors.New("gossip has not started")
	}
	if _, err := m.list.Load().Ping(string(id), net.UDPAddrFromAddrPort(addr)); err != nil {
		return fmt.Errorf("ping %s: %w", addr, err)
	}
	return nil
}
