package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/doctor"
)

func one[T any](answer T) *api.Answers[T] {
	return &api.Answers[T]{Nodes: []api.Answer[T]{{Hostname: "n1", Answer: &answer}, {Hostname: "n2", Error: "does not answer"}}}
}

func table(t *testing.T, heading []string, rows [][]string) string {
	t.Helper()
	var out bytes.Buffer
	if err := (&list{format: "table"}).print(&out, nil, heading, rows, nil); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestNetTables(t *testing.T) {
	backend := api.NetBackend{Addr: netip.MustParseAddr("10.128.0.5"), Port: 80, Task: "blog_web.1", Node: "n2", State: api.BackendDraining, Share: 0.3333, Flows: 2, NewFlows: 3, Packets: 18}
	behindVIP := backend
	behindVIP.Port = 0
	frontends := one(api.NetFrontends{Frontends: []api.NetFrontend{
		{Addr: netip.IPv4Unspecified(), Port: 8080, Protocol: api.TCP, Service: "blog_web", Return: api.ReturnDSR, Backends: []api.NetBackend{backend}},
		{Addr: netip.MustParseAddr("192.0.2.1"), Port: 53, Protocol: api.UDP, Service: "dns", Return: api.ReturnTunnel},
		{Addr: netip.MustParseAddr("10.128.0.2"), Service: "blog_web", Backends: []api.NetBackend{behindVIP}},
	}})
	flows := one(api.NetFlows{Flows: []api.NetFlow{{
		Protocol: api.TCP, Client: netip.MustParseAddrPort("203.0.113.9:51000"), Frontend: netip.MustParseAddrPort("192.0.2.1:8080"), Service: "blog_web",
		Backend: netip.MustParseAddrPort("10.128.0.5:80"), Task: "blog_web.1", Ingress: true, Serving: true, Verdict: "delivered", State: "established", Idle: 3 * time.Second,
	}}})
	drops := one(api.NetDrops{Drops: []api.NetDrop{
		{Reason: "isolated", Meaning: "no network in common", Packets: 2, Bytes: 120, Last: &api.NetExample{
			Ago: 2500 * time.Millisecond, Source: netip.MustParseAddrPort("10.128.0.9:4000"), Destination: netip.MustParseAddrPort("10.128.0.5:80"), Protocol: "tcp", Device: "orc1", Length: 60,
		}},
		{Reason: "spoofed"},
	}})
	traces := one(api.NetTrace{Verdict: "forwarded-tunnel", Frontend: "*:8080/tcp", Service: "blog_web", Backend: netip.MustParseAddrPort("10.128.0.5:80"), Task: "blog_web.1", Remembered: true, Path: "there", Return: "and back"})
	got := table(t, frontendHeading, answered(frontends, frontendRows)) +
		table(t, flowHeading, answered(flows, flowRows)) +
		table(t, dropHeading, answered(drops, dropRows)) +
		table(t, traceHeading, answered(traces, traceRows))
	want := `
NODE   FRONTEND           SERVICE    RETURN   BACKEND         TASK         ON   STATE      SHARE   FLOWS   NEW   PACKETS
n1     *:8080/tcp         blog_web   dsr      10.128.0.5:80   blog_web.1   n2   draining   33.3%   2       3     18
n1     192.0.2.1:53/udp   dns        tunnel   none
n1     10.128.0.2         blog_web            10.128.0.5   blog_web.1   n2   draining   33.3%   2   3   18
NODE   HERE   PROTOCOL   CLIENT              FRONTEND         SERVICE    BACKEND         TASK         VERDICT     STATE         IDLE
n1     both   tcp        203.0.113.9:51000   192.0.2.1:8080   blog_web   10.128.0.5:80   blog_web.1   delivered   established   3s
NODE   REASON     PACKETS   BYTES   MEANING                LAST
n1     isolated   2         120     no network in common   3s ago on orc1: tcp 10.128.0.9:4000 -> 10.128.0.5:80, 60 bytes
NODE   VERDICT            FRONTEND     SERVICE    BACKEND         TASK         CHOSEN BY   PATH    RETURN
n1     forwarded-tunnel   *:8080/tcp   blog_web   10.128.0.5:80   blog_web.1   the flow    there   and back
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPrintFindings(t *testing.T) {
	var out bytes.Buffer
	err := printFindings(&out, []doctor.Finding{
		{Node: "n1", Check: "clock", Level: doctor.OK, Found: "right"},
		{Node: "n1", Check: "MTU", Level: doctor.Fail, Found: "too large", Do: "make it smaller"},
	})
	want := `
n1   ok     clock   right
n1   fail   MTU     too large
                      -> make it smaller

1 ok, 0 warn, 1 fail
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), out.String()); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestParseTrace(t *testing.T) {
	client := netip.MustParseAddr("203.0.113.9")
	for _, tt := range []struct {
		client, dest string
		want         api.NetTraceRequest
		err          string
	}{
		{"203.0.113.9", "8080", api.NetTraceRequest{Client: netip.AddrPortFrom(client, 0), Port: 8080, Protocol: api.TCP}, ""},
		{"203.0.113.9:51000", "53/udp", api.NetTraceRequest{Client: netip.AddrPortFrom(client, 51000), Port: 53, Protocol: api.UDP}, ""},
		{"203.0.113.9", "10.128.0.2:5432/tcp", api.NetTraceRequest{Client: netip.AddrPortFrom(client, 0), Addr: netip.MustParseAddr("10.128.0.2"), Port: 5432, Protocol: api.TCP}, ""},
		{"somebody", "8080", api.NetTraceRequest{}, "give ADDRESS or ADDRESS:PORT"},
		{"203.0.113.9", "http", api.NetTraceRequest{}, "give PORT, PORT/udp or ADDRESS:PORT"},
		{"203.0.113.9", "0", api.NetTraceRequest{}, "give PORT"},
		{"203.0.113.9", "80/sctp", api.NetTraceRequest{}, "tcp or udp"},
	} {
		got, err := parseTrace(tt.client, tt.dest)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s %s: %v, want %q", tt.client, tt.dest, err, tt.err)
			}
			continue
		}
		if err != nil || *got != tt.want {
			t.Errorf("%s %s: %+v, %v", tt.client, tt.dest, got, err)
		}
	}
}
