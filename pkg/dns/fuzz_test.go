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

// FuzzReply looks for replies of other servers that make this one panic, or that it
// passes on as what is no answer to the task's query, or cannot be sent.
func FuzzReply(f *testing.F) {
	query := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	add := func(change func(reply *dns.Msg)) {
		reply := new(dns.Msg).SetReply(query)
		reply.Compress = true
		change(reply)
		packet, err := reply.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet, true)
		f.Add(packet, false)
	}
	record := func(text string) dns.RR {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		return rr
	}
	add(func(*dns.Msg) {})
	add(func(reply *dns.Msg) { reply.Response = false })
	add(func(reply *dns.Msg) { reply.Question[0].Name = "example.net." })
	add(func(reply *dns.Msg) {
		reply.Answer = []dns.RR{record("EXAMPLE.org. 60 IN CNAME www.example.org."), record("www.example.org. 60 IN A 192.0.2.1")}
	})
	add(func(reply *dns.Msg) {
		for range 100 {
			reply.Answer = append(reply.Answer, record(`example.org. 60 IN TXT "much to say, and more than a packet has room for"`))
		}
	})
	add(func(reply *dns.Msg) { reply.SetEdns0(4096, true).Rcode = dns.RcodeBadVers })
	f.Fuzz(func(t *testing.T, packet []byte, edns bool) {
		query := query.Copy()
		if edns {
			query.SetEdns0(1232, false)
		}
		reply := new(dns.Msg)
		if reply.Unpack(packet) != nil || passOn(reply, query) != nil {
			return
		}
		for _, size := range []int{dns.MaxMsgSize, packetSize(query)} { // over TCP, over UDP
			reply.Truncate(size)
			sent, err := reply.Pack()
			if err != nil {
				t.Fatalf("%v\ncannot be sent: %v", reply, err)
			}
			read := new(dns.Msg)
			switch err := read.Unpack(sent); {
			case err != nil:
				t.Fatalf("%v\nis sent as what cannot be read: %v", reply, err)
			case len(sent) > size:
				t.Fatalf("%v\nis sent as %d bytes, of %d", reply, len(sent), size)
			case read.Id != query.Id || !read.Response || len(read.Question) != 1 || read.Question[0] != query.Question[0]:
				t.Fatalf("%v\nis passed on as the answer to another query than\n%v", read, query)
			}
		}
	})
}
