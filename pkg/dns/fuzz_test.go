package dns

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
)

// replies is who asks, and what it is answered.
type replies struct {
	dns.ResponseWriter
	from net.Addr
	got  *dns.Msg
}

func (r *replies) RemoteAddr() net.Addr { return r.from }

func (r *replies) WriteMsg(m *dns.Msg) error {
	r.got = m
	return nil
}

// FuzzQuery looks for queries of tasks that make the server panic, or give an
// answer that cannot be sent.
func FuzzQuery(f *testing.F) {
	task := netip.MustParseAddr("10.128.0.9")
	server := New(Config{Log: slog.New(slog.DiscardHandler)}) // and no server to ask
	server.Set(&Zone{
		Clients: map[netip.Addr][]uint32{task: {1}},
		Names:   map[uint32]map[string][]netip.Addr{1: {"web": {netip.MustParseAddr("10.128.0.1")}, "tasks.web": nil}},
	})
	for _, name := range []string{"web.", "tasks.web.", "WEB.", "example.org.", "."} {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeANY} {
			query := new(dns.Msg).SetQuestion(name, kind)
			query.SetEdns0(1232, false)
			packet, err := query.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packet, kind == dns.TypeA)
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte, udp bool) {
		query := new(dns.Msg)
		if query.Unpack(packet) != nil {
			return
		}
		w := &replies{from: &net.TCPAddr{IP: task.AsSlice()}}
		if udp {
			w.from = &net.UDPAddr{IP: task.AsSlice()}
		}
		server.serve(context.Background(), task.Next(), w, query)
		if w.got == nil {
			t.Fatal("no answer")
		}
		sent, err := w.got.Pack()
		switch {
		case err != nil:
			t.Fatalf("%v\nis answered by what cannot be sent: %v\n%v", query, err, w.got)
		case udp && len(sent) > maxUDP:
			t.Fatalf("%v\nis answered by %d bytes", query, len(sent))
		case w.got.Id != query.Id || !w.got.Response:
			t.Fatalf("%v\nis answered by what is no answer to it: %v", query, w.got)
		}
	})
}
