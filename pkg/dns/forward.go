package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// queryTimeout bounds a whole answer. Resolvers ask again after 5 s
	// (resolv.conf(5)); an answer that comes later is not waited for.
	queryTimeout = 5 * time.Second
	// upstreamTimeout is what one upstream gets before the next is asked.
	upstreamTimeout = 2 * time.Second
	// maxForwarded bounds the queries under way to upstreams, each of which
	// holds a socket.
	maxForwarded = 512
)

// Upstreams are the name servers that a file in the form of resolv.conf(5)
// names, each with its port.
func Upstreams(path string) ([]string, error) {
	cfg, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, fmt.Errorf("read name servers: %w", err)
	}
	var list []string
	for _, server := range cfg.Servers {
		list = append(list, net.JoinHostPort(server, cfg.Port))
	}
	return list, nil
}

// forwarder asks other servers.
type forwarder struct {
	upstreams []string
	slots     chan struct{}
}

// newForwarder leaves out upstreams that are the server itself: its questions
// would come back to it.
func newForwarder(upstreams, self []string) forwarder {
	f := forwarder{slots: make(chan struct{}, maxForwarded)}
	for _, u := range upstreams {
		if _, _, err := net.SplitHostPort(u); err != nil {
			u = net.JoinHostPort(u, "53")
		}
		if !slices.Contains(self, u) {
			f.upstreams = append(f.upstreams, u)
		}
	}
	return f
}

// ask returns the reply of the first upstream that gives one worth passing on;
// the client may have its own.
func (f *forwarder) ask(ctx context.Context, query *dns.Msg, own []string) (*dns.Msg, error) {
	upstreams := f.upstreams
	if len(own) > 0 {
		upstreams = own
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return nil, fmt.Errorf("more than %d queries under way", maxForwarded)
	}
	errs := []error{errors.New("no upstream has answered")}
	for _, upstream := range upstreams {
		reply, err := exchange(ctx, upstream, query)
		if err == nil && reply.Rcode != dns.RcodeServerFailure && reply.Rcode != dns.RcodeRefused {
			return reply, nil
		}
		if err == nil {
			err = errors.New(dns.RcodeToString[reply.Rcode])
		}
		errs = append(errs, fmt.Errorf("ask %s: %w", upstream, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// exchange asks over UDP, and over TCP if the answer did not fit.
func exchange(ctx context.Context, upstream string, query *dns.Msg) (*dns.Msg, error) {
	question := query.Copy()
	question.Id = dns.Id() // a task must not choose the ID that protects from forged answers
	var reply *dns.Msg
	for _, network := range []string{"udp", "tcp"} {
		client := dns.Client{Net: network, Timeout: upstreamTimeout}
		var err error
		if reply, _, err = client.ExchangeContext(ctx, question, upstream); err != nil {
			return nil, err
		}
		if !reply.Truncated {
			break
		}
	}
	if err := passOn(reply, query); err != nil {
		return nil, err
	}
	return reply, nil
}

// passOn makes an upstream's reply one to the query.
func passOn(reply, query *dns.Msg) error {
	if !reply.Response || reply.Opcode != dns.OpcodeQuery {
		return errors.New("the reply is none")
	}
	asked := query.Question[0]
	if len(reply.Question) != 1 || reply.Question[0].Qtype != asked.Qtype || !strings.EqualFold(reply.Question[0].Name, asked.Name) {
		return errors.New("the reply is to another question")
	}
	reply.Id, reply.Question = query.Id, query.Question
	return nil
}
