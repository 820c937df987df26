package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func newID() string { return api.NewID(rand.Reader) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// member is a node with a certificate.
type member struct {
	id   Identity
	key  []byte
	cert []byte
}

func issue(t *testing.T, a *Authority, id Identity, life time.Duration) member {
	t.Helper()
	key := must(NewKey(rand.Reader))
	cert, err := a.Issue(rand.Reader, must(Request(key)), id, life, now)
	if err != nil {
		t.Fatal(err)
	}
	return member{id, key, cert}
}

func TestIssue(t *testing.T) {
	cluster := newID()
	authority := must(NewAuthority(rand.Reader, cluster, now))
	stored := must(authority.Store())
	loaded := must(LoadAuthority(stored)) // as another manager has it
	id := Identity{cluster, api.RoleWorker, api.NodeID(newID())}
	m := issue(t, loaded, id, 90*24*time.Hour)
	c, err := NewCredentials(m.key, api.Certificate{Node: m.cert, Roots: [][]byte{stored.Certificate}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Identity != id {
		t.Errorf("the certificate is for %s, want %s", c.Identity, id)
	}
	if from, to := now.Add(51*24*time.Hour), now.Add(60*24*time.Hour); c.RenewAt().Before(from) || c.RenewAt().After(to) {
		t.Errorf("renewed at %s, want it between %s and %s", c.RenewAt(), from, to)
	}
	if c.Life() != 90*24*time.Hour {
		t.Errorf("it was good for %v", c.Life())
	}
	if want := now.Add(90 * 24 * time.Hour); !c.Expires().Equal(want) {
		t.Errorf("ends at %s, want %s", c.Expires(), want)
	}
	other := must(NewAuthority(rand.Reader, cluster, now))
	tests := []struct {
		name  string
		roots *x509.CertPool
		host  string
		at    time.Time
		good  bool
	}{
		{"as itself", c.Roots, NodeName(id.Node), now, true},
		{"as its role", c.Roots, RoleName(api.RoleWorker), now, true},
		{"with a clock that is behind", c.Roots, NodeName(id.Node), now.Add(-59 * time.Minute), true},
		{"as another node", c.Roots, NodeName(api.NodeID(newID())), now, false},
		{"as another role", c.Roots, RoleName(api.RoleManager), now, false},
		{"expired", c.Roots, NodeName(id.Node), now.Add(90*24*time.Hour + time.Second), false},
		{"to another cluster", pool(other.cert), NodeName(id.Node), now, false},
	}
	for _, tt := range tests {
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			_, err := c.Certificate.Leaf.Verify(x509.VerifyOptions{
				Roots: tt.roots, DNSName: tt.host, CurrentTime: tt.at, KeyUsages: []x509.ExtKeyUsage{usage},
			})
			if (err == nil) != tt.good {
				t.Errorf("%s, usage %d: %v", tt.name, usage, err)
			}
		}
	}
}

func pool(cert *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(cert)
	return p
}

// A node's certificate signs no others.
func TestNodeIsNoAuthority(t *testing.T) {
	cluster := newID()
	authority := must(NewAuthority(rand.Reader, cluster, now))
	m := issue(t, authority, Identity{cluster, api.RoleManager, api.NodeID(newID())}, DefaultLife)
	rogue := must(LoadAuthority(api.Authority{Certificate: m.cert, Key: m.key}))
	forged := issue(t, rogue, Identity{cluster, api.RoleManager, api.NodeID(newID())}, DefaultLife)
	leaf := must(x509.ParseCertificate(forged.cert))
	between := pool(must(x509.ParseCertificate(m.cert)))
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool(authority.cert), Intermediates: between, CurrentTime: now}); err == nil {
		t.Error("a certificate that a node has signed is good")
	}
	if _, err := NewCredentials(forged.key, api.Certificate{Node: forged.cert, Roots: [][]byte{must(authority.Store()).Certificate}}); err == nil {
		t.Error("a certificate that a node has signed makes credentials")
	}
}

func TestIssueRefuses(t *testing.T) {
	cluster := newID()
	authority := must(NewAuthority(rand.Reader, cluster, now))
	good := must(Request(must(NewKey(rand.Reader))))
	id := Identity{cluster, api.RoleWorker, api.NodeID(newID())}
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	weak := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))))
	tests := []struct {
		name    string
		request []byte
		id      Identity
		says    string
	}{
		{"nothing", nil, id, "damaged"},
		{"not signed by its key", forged, id, "damaged"},
		{"another kind of key", weak, id, "Ed25519"},
		{"no node", good, Identity{cluster, api.RoleWorker, ""}, "node's ID"},
		{"a node with a path in its ID", good, Identity{cluster, api.RoleWorker, "../manager/x"}, "node's ID"},
		{"no cluster", good, Identity{"", api.RoleWorker, id.Node}, "cluster's ID"},
		{"no role", good, Identity{cluster, "king", id.Node}, "king"},
	}
	for _, tt := range tests {
		_, err := authority.Issue(rand.Reader, tt.request, tt.id, DefaultLife, now)
		if api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.says)
		}
	}
}

func TestCredentialsBelongTogether(t *testing.T) {
	cluster := newID()
	a, b := must(NewAuthority(rand.Reader, cluster, now)), must(NewAuthority(rand.Reader, cluster, now))
	id := Identity{cluster, api.RoleWorker, api.NodeID(newID())}
	m, n := issue(t, a, id, DefaultLife), issue(t, a, id, DefaultLife)
	rootA, rootB := must(a.Store()).Certificate, must(b.Store()).Certificate
	tests := []struct {
		name      string
		key, cert []byte
		roots     [][]byte
		says      string
	}{
		{"all", m.key, m.cert, [][]byte{rootA}, ""},
		{"two authorities", m.key, m.cert, [][]byte{rootB, rootA}, ""},
		{"another key", n.key, m.cert, [][]byte{rootA}, "another key"},
		{"another authority of the same name", m.key, m.cert, [][]byte{rootB}, "authority"},
		{"no authority", m.key, m.cert, nil, "authority"},
		{"no certificate", m.key, nil, [][]byte{rootA}, "certificate"},
		{"the authority's", m.key, rootA, [][]byte{rootA}, "another key"},
		{"damaged key", m.key[1:], m.cert, [][]byte{rootA}, "private key"},
	}
	for _, tt := range tests {
		c, err := NewCredentials(tt.key, api.Certificate{Node: tt.cert, Roots: tt.roots})
		if tt.says == "" {
			if err != nil || len(c.Certificate.Certificate) != 1+len(tt.roots) || c.Issuer != (&api.Authority{Certificate: rootA}).ID() {
				t.Errorf("%s: %v, want the authorities shown", tt.name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.says)
		}
	}
}

func TestIdentity(t *testing.T) {
	cluster, node := newID(), newID()
	want := Identity{cluster, api.RoleManager, api.NodeID(node)}
	got, err := ParseIdentity(want.String())
	if err != nil || got != want || want.String() != "orch://"+cluster+"/manager/"+node {
		t.Errorf("%s, %v", got, err)
	}
	for _, text := range []string{
		"", "orch://", "http://" + cluster + "/manager/" + node, "orch://" + cluster + "/manager", "orch://" + cluster + "/king/" + node,
		"orch://" + cluster + "/manager/" + node + "/", "orch://" + cluster + "/manager/" + strings.ToUpper(node), "orch://x/manager/" + node,
		"orch://" + cluster + "/manager/" + node + "?",
	} {
		if id, err := ParseIdentity(text); err == nil {
			t.Errorf("%q is %v", text, id)
		}
	}
}

func TestToken(t *testing.T) {
	want := Token{Role: api.RoleWorker, Digest: DigestOf([]byte("x")), Secret: newID(), Addr: "10.0.0.1:2377"}
	text := want.String()
	got, err := ParseToken(" " + text + "\n")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	token, _, _ := strings.Cut(text, "@")
	part := strings.Split(token, "-")
	tests := []struct{ name, text, says string }{
		{"nothing", "", "orch join-token"},
		{"no token", "10.0.0.1:2377", "begins with orch1-"},
		{"no address", token, "TOKEN@HOST:PORT"},
		{"an older token", "orch-worker-" + want.Secret + "@10.0.0.1", "begins with orch1-"},
		{"cut off", text[:40] + "@10.0.0.1", "damaged"},
		{"one letter lost", strings.Replace(text, part[3], part[3][1:], 1), "damaged"},
		{"one letter of the digest lost", strings.Replace(text, part[2], part[2][1:], 1), "damaged"},
		{"a role that is none", strings.Replace(text, "worker", "king", 1), "damaged"},
	}
	for _, tt := range tests {
		_, err := ParseToken(tt.text)
		if api.CodeOf(err) != api.CodeInvalid || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.says)
		}
		if err != nil && strings.Contains(err.Error(), want.Secret[2:]) {
			t.Errorf("%s: the error shows the secret: %v", tt.name, err)
		}
	}
}

func TestTokenCheck(t *testing.T) {
	cluster := newID()
	a, b := must(NewAuthority(rand.Reader, cluster, now)), must(NewAuthority(rand.Reader, cluster, now))
	id := func(role api.Role) Identity { return Identity{cluster, role, api.NodeID(newID())} }
	shown := func(m member, roots ...*Authority) (out []*x509.Certificate) {
		out = append(out, must(x509.ParseCertificate(m.cert)))
		for _, r := range roots {
			out = append(out, r.cert)
		}
		return out
	}
	manager, worker := issue(t, a, id(api.RoleManager), DefaultLife), issue(t, a, id(api.RoleWorker), DefaultLife)
	other := issue(t, b, id(api.RoleManager), DefaultLife)
	// The authority's certificate is public: who shows it need not be of its cluster.
	token := Token{Role: api.RoleWorker, Digest: DigestOf(a.cert.Raw), Secret: newID(), Addr: "10.0.0.1:2377"}
	tests := []struct {
		name  string
		shown []*x509.Certificate
		at    time.Time
		says  string
	}{
		{"a manager", shown(manager, a), now, ""},
		{"a worker", shown(worker, a), now, "address of a manager"},
		{"another cluster", shown(other, b), now, "another cluster"},
		{"another cluster's node with this one's authority", shown(other, b, a), now, "no valid certificate"},
		{"a manager without its authority", shown(manager), now, "another cluster"},
		{"the authority itself", []*x509.Certificate{a.cert}, now, "none of the cluster"},
		{"expired", shown(manager, a), now.Add(DefaultLife + time.Second), "no valid certificate"},
		{"nobody", nil, now, "another cluster"},
	}
	for _, tt := range tests {
		root, err := token.Check(tt.shown, tt.at)
		switch {
		case tt.says == "":
			if err != nil || !root.Equal(a.cert) {
				t.Errorf("%s: %v", tt.name, err)
			}
		case err == nil || !strings.Contains(err.Error(), tt.says):
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.says)
		case strings.Contains(err.Error(), token.Secret):
			t.Errorf("%s: the error shows the secret: %v", tt.name, err)
		}
	}
}

// Two certificates of one authority have different, large serial numbers.
func TestSerialNumbers(t *testing.T) {
	authority := must(NewAuthority(rand.Reader, newID(), now))
	seen := map[string]bool{}
	for range 20 {
		m := issue(t, authority, Identity{newID(), api.RoleWorker, api.NodeID(newID())}, DefaultLife)
		serial := must(x509.ParseCertificate(m.cert)).SerialNumber
		if seen[serial.String()] || serial.Cmp(new(big.Int).Lsh(big.NewInt(1), 64)) < 0 {
			t.Errorf("serial number %s", serial)
		}
		seen[serial.String()] = true
	}
}

func FuzzToken(f *testing.F) {
	f.Add(Token{Role: api.RoleManager, Digest: DigestOf(nil), Secret: strings.Repeat("a", api.IDLength), Addr: "h:1"}.String())
	f.Add("orch1-worker--@h")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		if again, err := ParseToken(token.String()); err != nil || again != token {
			t.Errorf("%q: %v becomes %v, %v", text, token, again, err)
		}
	})
}

func FuzzIdentity(f *testing.F) {
	cluster, node := strings.Repeat("a", api.IDLength), strings.Repeat("b", api.IDLength)
	f.Add("orch://" + cluster + "/manager/" + node)
	f.Add("orch://" + cluster + "/user/" + node + "?x#y")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseIdentity(text)
		if err == nil && id.String() != text {
			t.Errorf("%q is %s", text, id)
		}
	})
}

// FuzzCertificate reads certificates and requests that anybody may send.
func FuzzCertificate(f *testing.F) {
	authority := must(NewAuthority(rand.Reader, newID(), now))
	key := must(NewKey(rand.Reader))
	f.Add(authority.cert.Raw)
	f.Add(must(Request(key)))
	f.Fuzz(func(t *testing.T, der []byte) {
		_, _ = RequestKey(der)
		if c, err := NewCredentials(key, api.Certificate{Node: der, Chain: [][]byte{der}, Roots: [][]byte{der}}); err == nil {
			t.Errorf("credentials of %s, which nobody has issued", c.Identity)
		}
	})
}

// FuzzAuthority reads the certificate of an authority outside, as users give it.
func FuzzAuthority(f *testing.F) {
	authority := must(NewAuthority(rand.Reader, newID(), now))
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.cert.Raw})
	f.Add(text)
	f.Add(append(bytes.Clone(text), text...))
	f.Add(append([]byte("before\n"), text...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		der, err := ParseAuthority(data, now)
		if err != nil {
			if api.CodeOf(err) != api.CodeInvalid {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		if cert, err := x509.ParseCertificate(der); err != nil || !cert.IsCA || cert.NotAfter.Before(now) {
			t.Errorf("%q is taken for an authority: %v", data, err)
		}
		if _, err := poolOf([][]byte{der}); err != nil {
			t.Errorf("%q is taken, and cannot be trusted: %v", data, err)
		}
	})
}

// FuzzIssued looks for what an authority outside may answer that makes a manager
// panic, or that it takes for what was asked, or for the next authority, though the
// authority never signed it.
func FuzzIssued(f *testing.F) {
	rand := mathrand.NewChaCha8([32]byte{}) // the same in each of the fuzzer's processes
	cluster := api.NewID(rand)
	authority, next := must(NewAuthority(rand, cluster, now)), must(NewAuthority(rand, cluster, now))
	id := Identity{cluster, api.RoleWorker, api.NodeID(api.NewID(rand))}
	request := must(Request(must(NewKey(rand))))
	issued := must(authority.Issue(rand, request, id, DefaultLife, now))
	cross := must(authority.CrossSign(rand, next.cert.Raw, now))
	another := must(authority.Issue(rand, request, Identity{cluster, api.RoleManager, id.Node}, DefaultLife, now))
	foreign := must(next.Issue(rand, request, id, DefaultLife, now))
	if CheckIssued(issued, request, authority.cert.Raw, id, now) != nil || CheckCross(cross, authority.cert.Raw, next.cert.Raw, now) != nil {
		f.Fatal("what was signed is refused")
	}
	for _, der := range [][]byte{issued, cross, another, foreign, authority.cert.Raw, next.cert.Raw, request, append(bytes.Clone(issued), 0), nil} {
		f.Add(der)
	}
	signed := func(der []byte) []byte { return must(x509.ParseCertificate(der)).RawTBSCertificate }
	f.Fuzz(func(t *testing.T, der []byte) {
		if CheckIssued(der, request, authority.cert.Raw, id, now) == nil && !bytes.Equal(signed(der), signed(issued)) {
			t.Errorf("%x was never signed for %s", der, id)
		}
		if CheckCross(der, authority.cert.Raw, next.cert.Raw, now) == nil && !bytes.Equal(signed(der), signed(cross)) {
			t.Errorf("%x was never signed for the next authority", der)
		}
	})
}
