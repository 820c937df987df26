package main

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
)

// FuzzTrace looks for packets, as a user names them, that do not reach the nodes as
// they were meant.
func FuzzTrace(f *testing.F) {
	f.Add("203.0.113.9", "8080")
	f.Add("203.0.113.9:51000", "53/udp")
	f.Add("[2001:db8::1]:1", "[::1]:80/tcp")
	f.Add("fe80::1%eth0", "10.128.0.2:5432/tcp")
	f.Fuzz(func(t *testing.T, client, dest string) {
		req, err := parseTrace(client, dest)
		if err != nil {
			return
		}
		if !req.Client.Addr().IsValid() || req.Protocol != api.TCP && req.Protocol != api.UDP {
			t.Fatalf("%q %q is taken for %+v", client, dest, req)
		}
		text, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		got := new(api.NetTraceRequest)
		if err := json.Unmarshal(text, got); err != nil {
			t.Fatalf("%q %q is sent as %s, which cannot be read: %v", client, dest, text, err)
		}
		if diff := cmp.Diff(req, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); diff != "" {
			t.Fatalf("%q %q (-meant +read):\n%s", client, dest, diff)
		}
	})
}

// FuzzFlags looks for values of flags that make the command line panic, or that
// are taken for a secret or label that has no name.
func FuzzFlags(f *testing.F) {
	f.Add("password", "web=3", "key=value")
	f.Add("source=password,target=/x,mode=0400,uid=0", "web", "=")
	f.Fuzz(func(t *testing.T, ref, scale, label string) {
		if r, err := parseFileRef(api.ClassSecret, ref); err == nil && r.Name == "" {
			t.Errorf("%q names no secret: %+v", ref, r)
		}
		if req, err := parseScale([]string{scale}); err == nil && len(req.Replicas) != 1 {
			t.Errorf("%q scales %d services", scale, len(req.Replicas))
		}
		if labels, err := parseLabels([]string{label}); err == nil && len(labels) != 1 {
			t.Errorf("%q is %d labels", label, len(labels))
		}
	})
}
