package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/quiet"
)

// Callers that have not shown a certificate of the cluster are guests: they have
// to finish the handshake within dialTimeout, a connection of theirs lasts
// guestTime, which is enough to join, and only so many are open at once: for one
// more the oldest is closed.
const (
	guestTime          = 20 * time.Second
	maxGuests          = 256
	maxGuestsPerSource = 32
)

// acceptPause is waited when no connection can be accepted, as when the process
// has too many files open.
const acceptPause = 50 * time.Millisecond

// gate is the listener of the API's connections on a port that it shares with
// Raft. Whom it lets through has shown a certificate of the cluster or none.
type gate struct {
	net.Listener
	config *tls.Config
	// guestTime is how long a connection of somebody lasts who shows no certificate.
	guestTime time.Duration
	raft      func(net.Conn)
	log       *slog.Logger
	guests    guests
	quota     *quota // of members that are no managers
	api       chan net.Conn
	closed    chan struct{}
	once      sync.Once
}

func newGate(l net.Listener, sec *Security, raft func(net.Conn), log *slog.Logger) *gate {
	return &gate{
		Listener: l, guestTime: guestTime, config: sec.server(raft != nil), raft: raft, log: log,
		guests: guests{sources: make(map[netip.Addr]int)}, quota: newQuota(maxConnections),
		api: make(chan net.Conn), closed: make(chan struct{}),
	}
}

// run lets connections in until ctx ends.
func (g *gate) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = g.Close() })
	defer stop()
	for {
		conn, err := g.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept on %s: %w", g.Addr(), err)
		case err != nil:
			g.log.Warn("cannot accept a connection", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		go g.admit(ctx, g.guests.enter(conn))
	}
}

// admit does the handshake and hands the connection to whom it is for.
func (g *gate) admit(ctx context.Context, guest *guest) {
	conn := tls.Server(guest, g.config)
	handshake, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := conn.HandshakeContext(handshake); err != nil {
		g.log.Debug("refused a connection", "from", conn.RemoteAddr(), "err", err)
		_ = conn.Close()
		return
	}
	state := conn.ConnectionState()
	if len(state.PeerCertificates) == 0 {
		time.AfterFunc(g.guestTime, func() { _ = conn.Close() })
	} else if err := g.become(guest, state.PeerCertificates[0]); err != nil {
		g.log.Warn("refused a connection", "from", conn.RemoteAddr(), "err", err)
		_ = conn.Close()
		return
	}
	switch {
	case state.NegotiatedProtocol == protocolAPI:
		select {
		case g.api <- conn:
		case <-g.closed:
			_ = conn.Close()
		}
	case isRaft(state.NegotiatedProtocol) && g.raft != nil:
		g.raft(conn)
	default:
		_ = conn.Close()
	}
}

// become counts a guest for who it has turned out to be.
func (g *gate) become(guest *guest, shown *x509.Certificate) error {
	id, err := pki.IdentityOf(shown)
	if err != nil { // checkPeer has looked at it
		return err
	}
	leave := func() {}
	if id.Role != api.RoleManager {
		var ok bool
		if leave, ok = g.quota.enter(id.Node); !ok {
			return fmt.Errorf("%s %s has %d connections, more are not possible", id.Role, id.Node, maxConnections)
		}
	}
	if !g.guests.leave(guest) {
		leave()
		return errors.New("it was closed for a newer one: too many callers have not shown who they are")
	}
	guest.leave = leave
	return nil
}

func (g *gate) Accept() (net.Conn, error) {
	select {
	case c := <-g.api:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Listener.Close()
}

// guests are the connections of callers that are not known to be members.
type guests struct {
	mu      sync.Mutex
	open    []*guest // the oldest first
	sources map[netip.Addr]int
}

// guest is the connection of one. It counts until it is closed, or known to be
// a member's, for whom it counts from then on.
type guest struct {
	net.Conn
	source netip.Addr
	leave  func()
}

func (g *guest) Close() error {
	g.leave()
	return g.Conn.Close()
}

// enter counts a connection. Where there are too many already the oldest one is
// closed for it, of the same source or of that with the most: who is silent
// keeps nobody out, since a member is known as such within milliseconds.
func (g *guests) enter(conn net.Conn) *guest {
	entered := &guest{Conn: quiet.Conn(conn), source: sourceOf(conn.RemoteAddr().String())}
	entered.leave = func() { g.leave(entered) }
	g.mu.Lock()
	defer g.mu.Unlock()
	if oldest := g.inTheWay(entered.source); oldest != nil {
		g.remove(oldest)
		_ = oldest.Conn.Close() // whoever serves it closes the rest
	}
	g.open = append(g.open, entered)
	g.sources[entered.source]++
	return entered
}

// inTheWay returns the connection that has to go before source can have one more,
// nil if there is room.
func (g *guests) inTheWay(source netip.Addr) *guest {
	most := g.sources[source]
	switch {
	case most >= maxGuestsPerSource:
		return g.open[slices.IndexFunc(g.open, func(o *guest) bool { return o.source == source })]
	case len(g.open) < maxGuests:
		return nil
	}
	for _, n := range g.sources {
		most = max(most, n)
	}
	return g.open[slices.IndexFunc(g.open, func(o *guest) bool { return g.sources[o.source] == most })]
}

// leave has a guest count no more. It returns false if that was so already: it has
// been closed, or will be.
func (g *guests) leave(o *guest) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.remove(o)
}

func (g *guests) remove(o *guest) bool {
	i := slices.Index(g.open, o)
	if i < 0 {
		return false
	}
	g.open = slices.Delete(g.open, i, i+1)
	if g.sources[o.source]--; g.sources[o.source] == 0 {
		delete(g.sources, o.source)
	}
	return true
}

// sourceOf is the address in an HOST:PORT.
func sourceOf(hostPort string) netip.Addr {
	ap, _ := netip.ParseAddrPort(hostPort)
	return ap.Addr().Unmap()
}
