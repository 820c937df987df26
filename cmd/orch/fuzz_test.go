package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

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

// FuzzExternal looks for values of --external-ca that make the command line panic, or
// that a manager would not understand as they were meant.
func FuzzExternal(f *testing.F) {
	f.Add("https://ca:8888/api/v1/cfssl/sign")
	f.Add("protocol=cfssl,url=https://ca/sign,profile=nodes")
	f.Add("url=https://[::1]:1/%zz,profile=")
	f.Add("url=https://a\x00b/,url=https://c/")
	f.Add("url=,=,")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "cacert=") {
			t.Skip() // what files there are
		}
		ca, err := parseExternal(text)
		if err != nil {
			return
		}
		if !utf8.ValidString(text) {
			t.Skip() // JSON has none
		}
		sent, err := json.Marshal(ca)
		if err != nil {
			t.Fatal(err)
		}
		got := new(api.ExternalCA)
		if err := json.Unmarshal(sent, got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ca, got); diff != "" || got.Validate() != nil {
			t.Fatalf("%q is sent as %s, %v (-meant +read):\n%s", text, sent, got.Validate(), diff)
		}
		if _, err := http.NewRequestWithContext(t.Context(), http.MethodPost, got.URL, nil); err != nil {
			t.Fatalf("%q is taken, and cannot be asked: %v", text, err)
		}
	})
}

// FuzzContext looks for files, given as those of a user, that make the command line
// panic, that it refuses without saying which, or that it takes for a user's whose
// certificate they do not have.
func FuzzContext(f *testing.F) {
	file, err := os.ReadFile(userFile(f, "vera"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add(file[:len(file)/2])
	f.Add([]byte(`{"key":"AAAA","managers":["127.0.0.1:1"],"certificate":{"roots":[null]}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "x.orch")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := readRemote(path)
		if err != nil {
			if !strings.Contains(err.Error(), path) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		credentials, err := r.credentials()
		if err != nil || !bytes.Equal(credentials.Certificate.Certificate[0], r.Certificate.Node) {
			t.Fatalf("%q: %v", data, err)
		}
	})
}
