package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

const (
	// ttl of the cluster's own names, seconds. Asking costs a task some tens of
	// microseconds, since the server is on its node; an address kept for longer
	// than it is true costs it a failed request. So nothing is to be kept.
	ttl = 0

	// maxUDP is the largest answer sent over UDP, bytes: one that passes an
	// overlay's MTU in one piece (the default of DNS flag day 2020). A larger
	// one is asked for again over TCP.
	maxUDP = 1232

	// firstZoneWait is how long a query waits while the server has no zone yet,
	// so that tasks do not notice a daemon that starts again.
	firstZoneWait = 2 * time.Second
)

// Config says where the server listens and whom it asks.
type Config struct {
	// Listen are addresses with ports, served over UDP and TCP.
	Listen []string
	// Upstreams are the servers that names outside the cluster are asked of,
	// in order; the port is 53 where none is given.
	Upstreams []string
	Log       *slog.Logger
}

// Server answers the tasks of one node.
type Server struct {
	listen    []string
	forwarder forwarder
	log       *slog.Logger
	zone      atomic.Pointer[Zone]
	hasZone   chan struct{} // closed by the first Set
	firstZone sync.Once
}

// New makes a server that does nothing until Run.
func New(cfg Config) *Server {
	return &Server{
		listen:    cfg.Listen,
		forwarder: newForwarder(cfg.Upstreams, cfg.Listen),
		log:       cfg.Log,
		hasZone:   make(chan struct{}),
	}
}

// Set makes zone all that the server knows; the caller does not change it any
// more. Queries answered after Set has returned are answered from it.
func (s *Server) Set(zone *Zone) {
	s.zone.Store(zone)
	s.firstZone.Do(func() { close(s.hasZone) })
}

// Run serves until ctx is done, then returns nil. It returns an error when it
// cannot listen or stops serving.
func (s *Server) Run(ctx context.Context) error {
	servers, err := s.open(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, server := range servers {
		group.Go(func() error {
			if err := server.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("serve names: %w", err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		for _, server := range servers {
			// An error means that it has not begun to serve; then it will not,
			// with its socket closed.
			if err := server.Shutdown(); err != nil {
				closeServer(server)
			}
		}
		return nil
	})
	return group.Wait()
}

// open listens on every address, or on none.
func (s *Server) open(ctx context.Context) ([]*dns.Server, error) {
	var servers []*dns.Server
	var listen net.ListenConfig
	fail := func(addr string, err error) ([]*dns.Server, error) {
		for _, server := range servers {
			closeServer(server)
		}
		return nil, fmt.Errorf("listen for names on %s: %w", addr, err)
	}
	for _, addr := range s.listen {
		at, err := netip.ParseAddrPort(addr)
		if err != nil {
			return fail(addr, err)
		}
		handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) { s.serve(ctx, at.Addr(), w, query) })
		packets, err := listen.ListenPacket(ctx, "udp", addr)
		if err != nil {
			return fail(addr, err)
		}
		servers = append(servers, &dns.Server{PacketConn: packets, Handler: handler})
		streams, err := listen.Listen(ctx, "tcp", addr)
		if err != nil {
			return fail(addr, err)
		}
		servers = append(servers, &dns.Server{Listener: streams, Handler: handler})
	}
	return servers, nil
}

func closeServer(server *dns.Server) {
	if server.PacketConn != nil {
		server.PacketConn.Close()
	}
	if server.Listener != nil {
		server.Listener.Close()
	}
}

// serve answers one query that came to the address at.
func (s *Server) serve(ctx context.Context, at netip.Addr, w dns.ResponseWriter, query *dns.Msg) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	from, overUDP := source(w.RemoteAddr())
	reply := s.answer(ctx, from, from == at, query)
	if overUDP {
		reply.Truncate(packetSize(query))
	}
	if err := w.WriteMsg(reply); err != nil && !errors.Is(err, net.ErrClosed) {
		s.log.Debug("answer to a name query not sent", "to", from, "err", err)
	}
}

// packetSize is how large an answer over UDP may be.
func packetSize(query *dns.Msg) int {
	if opt := query.IsEdns0(); opt != nil {
		return min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
	}
	return dns.MinMsgSize
}

func source(addr net.Addr) (from netip.Addr, overUDP bool) {
	switch a := addr.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap(), true
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap(), false
	}
	return netip.Addr{}, false
}

// answer is the reply to a query from an address: that of a task, or of the
// node itself, which knows the names of all networks, or of a stranger.
func (s *Server) answer(ctx context.Context, from netip.Addr, fromNode bool, query *dns.Msg) *dns.Msg {
	if query.Opcode != dns.OpcodeQuery || len(query.Question) != 1 {
		return status(query, dns.RcodeNotImplemented)
	}
	select {
	case <-s.hasZone:
	case <-ctx.Done():
		return status(query, dns.RcodeServerFailure)
	case <-time.After(firstZoneWait):
		return status(query, dns.RcodeServerFailure)
	}
	zone := s.zone.Load()
	networks, isTask := zone.Clients[from]
	switch {
	case isTask:
	case fromNode:
		networks = zone.all()
	default:
		return status(query, dns.RcodeRefused)
	}
	question := query.Question[0]
	name := strings.ToLower(strings.TrimSuffix(question.Name, "."))
	addrs, found := zone.lookup(networks, name)
	switch {
	case question.Qclass != dns.ClassINET:
		return status(query, dns.RcodeNotImplemented)
	case found && question.Qtype == dns.TypeA:
		return addresses(query, addrs)
	case found:
		return status(query, dns.RcodeSuccess) // the name is there, such a record is not
	case ours(name), zone.Inside[from]:
		return status(query, dns.RcodeNameError)
	}
	reply, err := s.forwarder.ask(ctx, query, zone.Upstreams[from])
	if err != nil {
		s.log.Debug("name not looked up", "name", question.Name, "err", err)
		return status(query, dns.RcodeServerFailure)
	}
	return reply
}

// status is a reply without records.
func status(query *dns.Msg, code int) *dns.Msg {
	reply := new(dns.Msg)
	reply.SetRcode(query, code)
	reply.RecursionAvailable = true
	if opt := query.IsEdns0(); opt != nil {
		reply.SetEdns0(maxUDP, false)
	}
	return reply
}

// addresses is a reply with A records, in an order of its own each time, so
// that clients that take the first spread over all.
func addresses(query *dns.Msg, addrs []netip.Addr) *dns.Msg {
	reply := status(query, dns.RcodeSuccess)
	reply.Authoritative = true
	addrs = slices.Clone(addrs)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	for _, addr := range addrs {
		reply.Answer = append(reply.Answer, &dns.A{
			Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl},
			A:   addr.AsSlice(),
		})
	}
	return reply
}
