package pki

import (
	"crypto/rand"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// While an authority is replaced, everybody accepts everybody, whatever each of
// them has heard of; afterwards the old authority is worth nothing.
func TestCrossSign(t *testing.T) {
	cluster := newID()
	old, next := must(NewAuthority(rand.Reader, cluster, now)), must(NewAuthority(rand.Reader, cluster, now))
	oldRoot, newRoot := old.cert.Raw, next.cert.Raw
	later := now.Add(time.Hour)
	cross := must(old.CrossSign(rand.Reader, next.cert.Raw, later))
	id := Identity{cluster, api.RoleManager, api.NodeID(newID())}
	before, after := issue(t, old, id, DefaultLife), issue(t, next, id, DefaultLife)
	shows := map[string]*Credentials{
		"not renewed": must(NewCredentials(before.key, api.Certificate{Node: before.cert, Roots: [][]byte{oldRoot}})),
		"renewed":     must(NewCredentials(after.key, api.Certificate{Node: after.cert, Chain: [][]byte{cross}, Roots: [][]byte{oldRoot, newRoot}})),
		"finished":    must(NewCredentials(after.key, api.Certificate{Node: after.cert, Roots: [][]byte{newRoot}})),
	}
	for _, tt := range []struct {
		shows, trusts string
		good          bool
	}{
		{"not renewed", "not renewed", true}, {"not renewed", "renewed", true}, {"not renewed", "finished", false},
		{"renewed", "not renewed", true}, {"renewed", "renewed", true}, {"renewed", "finished", true},
		{"finished", "not renewed", false}, {"finished", "renewed", true}, {"finished", "finished", true},
	} {
		shown := shows[tt.shows]
		between := x509.NewCertPool()
		for _, der := range shown.Certificate.Certificate[1:] {
			between.AddCert(must(x509.ParseCertificate(der)))
		}
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			_, err := shown.Certificate.Leaf.Verify(x509.VerifyOptions{
				Roots: shows[tt.trusts].Roots, Intermediates: between, CurrentTime: later, KeyUsages: []x509.ExtKeyUsage{usage},
			})
			if (err == nil) != tt.good {
				t.Errorf("%s, seen by %s: %v", tt.shows, tt.trusts, err)
			}
		}
	}
	for what, want := range map[string]*Authority{"not renewed": old, "renewed": next, "finished": next} {
		if got := shows[what].Issuer; got != (&api.Authority{Certificate: want.cert.Raw}).ID() {
			t.Errorf("%s: issued by %s", what, got)
		}
	}
	// A token that was printed before is good as long as the old authority is.
	token := Token{Role: api.RoleWorker, Digest: DigestOf(oldRoot), Secret: newID(), Addr: "10.0.0.1:2377"}
	for what, says := range map[string]string{"not renewed": "", "renewed": "", "finished": "authority was replaced"} {
		var chain []*x509.Certificate
		for _, der := range shows[what].Certificate.Certificate {
			chain = append(chain, must(x509.ParseCertificate(der)))
		}
		_, err := token.Check(chain, later)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("an old token, %s: %v, want %q", what, err, says)
		}
	}
	// What was signed by the old one signs nodes, and no further authority.
	third := must(NewAuthority(rand.Reader, cluster, now))
	leaf := must(x509.ParseCertificate(issue(t, third, id, DefaultLife).cert))
	between := pool(must(x509.ParseCertificate(cross)))
	between.AddCert(must(x509.ParseCertificate(must(next.CrossSign(rand.Reader, third.cert.Raw, later)))))
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool(old.cert), Intermediates: between, CurrentTime: later}); err == nil {
		t.Error("the authority after the next is trusted through both")
	}
}
