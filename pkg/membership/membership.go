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
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/orch-dev/orch/pkg/api"
)

// Config says who the node is and where it gossips.
type Config struct {
	ID       api.NodeID
	BindAddr string // IP address
	Port     int    // UDP and TCP; 0 takes a free one
	// AdvertiseAddr is the IP address that others use; empty: BindAddr.
	AdvertiseAddr string
	// Key encrypts all gossip: 16, 24 or 32 bytes, the same on every node.
	Key []byte
	Log *slog.Logger
}

// A dead node is known to all about 1 s after its death: one probe round until
// it is missed, then the suspicion, 3 * max(1, log10(nodes)) rounds, in which it
// or its friends can object (SWIM, with Lifeguard's extensions).
const (
	probeInterval  = 200 * time.Millisecond
	probeTimeout   = 100 * time.Millisecond
	suspicionMult  = 3
	gossipInterval = 50 * time.Millisecond
	// suspicionMax bounds the suspicion, in multiples of the above, where
	// nobody is left to confirm it: two dead of three nodes are known in 2.5 s.
	suspicionMax = 3
)

const (
	// rejoinInterval is how often nodes that should be members and are not
	// heard of are called, rejoinAtOnce how many of them at a time.
	rejoinInterval = time.Second
	rejoinAtOnce   = 3
	// streamTimeout bounds one call.
	streamTimeout = time.Second
)

// Members is this node's part in the gossip. All methods are safe for
// concurrent use.
type Members struct {
	cfg     Config
	hints   hints
	started chan struct{} // closed when list is set
	list    *memberlist.Memberlist

	mu      sync.Mutex
	alive   map[api.NodeID]bool
	addrs   map[api.NodeID]string // of those alive; memberlist's own records change while they are read
	changed chan struct{}
	left    bool
}

// New returns a member that does nothing until Run.
func New(cfg Config) (*Members, error) {
	if cfg.ID == "" {
		return nil, errors.New("gossip: no node ID")
	}
	if _, err := netip.ParseAddr(cfg.BindAddr); err != nil {
		return nil, fmt.Errorf("gossip: bind address: %w", err)
	}
	if err := memberlist.ValidateKey(cfg.Key); err != nil {
		return nil, fmt.Errorf("gossip: key of %d bytes: %w", len(cfg.Key), err)
	}
	if cfg.AdvertiseAddr == "" {
		cfg.AdvertiseAddr = cfg.BindAddr
	}
	m := &Members{
		cfg:     cfg,
		started: make(chan struct{}),
		alive:   map[api.NodeID]bool{},
		addrs:   map[api.NodeID]string{},
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
	list, err := memberlist.Create(m.config())
	if err != nil {
		return fmt.Errorf("gossip on %s port %d: %w", m.cfg.BindAddr, m.cfg.Port, err)
	}
	m.list = list
	close(m.started)

	tick := time.NewTicker(rejoinInterval)
	defer tick.Stop()
	for {
		m.rejoin(peers())
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err := list.Shutdown(); err != nil {
				return fmt.Errorf("stop gossip: %w", err)
			}
			return nil
		}
	}
}

func (m *Members) config() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = string(m.cfg.ID)
	c.BindAddr, c.BindPort = m.cfg.BindAddr, m.cfg.Port
	c.AdvertiseAddr, c.AdvertisePort = m.cfg.AdvertiseAddr, m.cfg.Port
	c.SecretKey = m.cfg.Key
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicionMult, suspicionMax
	c.GossipInterval = gossipInterval
	c.TCPTimeout = streamTimeout
	// Messages are small, and each would cost the compressor's tables.
	c.EnableCompression = false
	// A node that comes back with another address takes its name over once
	// its former self is dead.
	c.DeadNodeReclaimTime = time.Second
	c.Logger = log.New(debugLog{m.cfg.Log}, "", 0)
	c.Events = events{m}
	c.Delegate = &m.hints
	return c
}

// rejoin calls some of the peers that are not alive.
func (m *Members) rejoin(peers []string) {
	here := map[string]bool{}
	m.mu.Lock()
	left := m.left
	for _, addr := range m.addrs {
		here[addr] = true
	}
	m.mu.Unlock()
	if left {
		return
	}
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
			if _, err := m.list.Join([]string{addr}); err != nil {
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
		_, err := m.list.Join(addrs)
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
	if err := m.list.Leave(timeout); err != nil {
		return fmt.Errorf("leave gossip: %w", err)
	}
	return nil
}

// Addr is the address that others gossip with, once Run listens.
func (m *Members) Addr(ctx context.Context) (string, error) {
	if err := m.wait(ctx); err != nil {
		return "", fmt.Errorf("gossip address: %w", err)
	}
	return m.list.LocalNode().Address(), nil
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

// Changed returns a channel that is closed when Alive next changes. Take it
// before the Alive it is about.
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

// set notes a node that is alive at an address, or is not, with none.
func (m *Members) set(id api.NodeID, addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	alive := addr != ""
	if alive {
		m.addrs[id] = addr
	} else {
		delete(m.addrs, id)
	}
	if was, known := m.alive[id]; known && was == alive {
		return
	}
	m.alive[id] = alive
	close(m.changed)
	m.changed = make(chan struct{})
}

// events takes memberlist's word on who is alive.
type events struct{ *Members }

func (e events) NotifyJoin(n *memberlist.Node)   { e.set(api.NodeID(n.Name), n.Address()) }
func (e events) NotifyUpdate(n *memberlist.Node) { e.set(api.NodeID(n.Name), n.Address()) }
func (e events) NotifyLeave(n *memberlist.Node)  { e.set(api.NodeID(n.Name), "") }

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
	if _, err := m.list.Ping(string(id), net.UDPAddrFromAddrPort(addr)); err != nil {
		return fmt.Errorf("ping %s: %w", addr, err)
	}
	return nil
}
