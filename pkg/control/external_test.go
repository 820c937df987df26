package control

import (
	"context"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/signer"
	"github.com/orch-dev/orch/tests/cfssl"
)

// signOutside has the manager of a site ask external authorities, over HTTPS, with
// its own certificate.
func (s *site) signOutside(ctx context.Context, authority *api.Authority, request []byte, id pki.Identity) ([]byte, error) {
	cert, err := signer.Sign(ctx, authority.External, authority.Certificate, &s.own.Load().Certificate, signer.Request{
		CSR: request, CommonName: string(id.Node), Hosts: id.Hosts(),
	})
	if err != nil {
		return nil, err
	}
	return cert, pki.CheckIssued(cert, request, authority.Certificate, id, time.Now())
}

// moveOutside replaces the cluster's own authority by one outside.
func (s *site) moveOutside(t *testing.T, ca *cfssl.CA) {
	t.Helper()
	s.Sign = s.signOutside
	ca.Trust(s.Replica.Snapshot().Cluster.Authority.Certificate)
	must(s.RotateAuthority(deadline(t), &api.RotateAuthorityRequest{Grace: time.Hour, Next: ca.Authority()}))
	s.renewSelf(t)
	must(s.FinishRotation(deadline(t), &api.Empty{}))
	s.followRoots()
}

// An authority outside signs what joins, renews and is a user, and the key of none is
// in the state. What it says when it does not sign, users see with its address.
func TestExternalAuthority(t *testing.T) {
	s := newSite(t)
	ca := cfssl.Start(t, "corporate")
	s.moveOutside(t, ca)
	if kept := s.Replica.Snapshot().Cluster; kept.Authority.Key != nil || kept.Rotation != nil || kept.Authority.ID() != ca.Authority().ID() {
		t.Fatalf("the state has the authority %+v", kept.Authority)
	}
	if status := must(s.Authority(deadline(t), &api.Empty{})); status.External != ca.URL {
		t.Errorf("shown: %+v", status)
	}

	life := time.Hour
	if _, err := s.UpdateCluster(deadline(t), &api.UpdateClusterRequest{CertificateLife: &life}); err == nil || !strings.Contains(err.Error(), ca.URL) {
		t.Errorf("the life of certificates: %v", err)
	}

	worker := s.member(t, api.RoleWorker)
	fresh := newKeyed()
	renewed := must(rpc.Call[api.RenewRequest, api.Certificate](deadline(t), worker.client, api.ProcRenew, &api.RenewRequest{Request: fresh.request}))
	own := must(pki.NewCredentials(fresh.key, *renewed))
	if left := own.Life(); left < cfssl.Life || left > cfssl.Life+10*time.Minute || !own.RenewAt().Before(own.Expires().Add(-cfssl.Life/3)) {
		t.Errorf("the certificate lives %v, and is renewed at %s before its end on %s", left, own.RenewAt(), own.Expires())
	}
	user := newKeyed()
	access := must(s.AddUser(deadline(t), &api.AddUserRequest{Name: "alice", Role: api.UserViewer, Request: user.request}))
	must(pki.NewCredentials(user.key, access.Certificate))
	if got := ca.Signed(); len(got) != 4 || got[0] != string(s.Node) || got[2] != string(worker.node.ID) || got[3] != string(access.User.ID) {
		t.Errorf("it has signed for %v", got)
	}

	for why, spoil := range map[string]func(){
		"the policy says no": func() { ca.Refuse("the policy says no") },
		"take over the names": func() {
			ca.Spoil(func(c *x509.Certificate) { c.URIs = nil })
		},
		"not for orch://": func() {
			ca.Spoil(func(c *x509.Certificate) {
				c.URIs = []*url.URL{{Scheme: "orch", Host: newID(), Path: "/manager/" + newID()}}
			})
		},
		"client and server authentication": func() {
			ca.Spoil(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
		},
		"lacks a name": func() {
			ca.Spoil(func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] })
		},
	} {
		spoil()
		_, err := s.join(t, newJoiner(), s.tokens(t).Worker)
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
		ca.Refuse("")
		ca.Spoil(nil)
	}
	ca.Refuse("closed")
	if _, err := s.AddUser(deadline(t), &api.AddUserRequest{Name: "bob", Role: api.UserViewer, Request: newKeyed().request}); err == nil {
		t.Error("a user was added without a certificate")
	}
	if snap := s.Replica.Snapshot(); len(snap.Nodes) != 2 || len(snap.Cluster.Users) != 1 {
		t.Errorf("%d nodes and %d users are left of those that got no certificate", len(snap.Nodes), len(snap.Cluster.Users))
	}
}

// An authority outside is replaced with a certificate that it has signed, and not
// by the managers alone.
func TestExternalAuthorityIsReplaced(t *testing.T) {
	s := newSite(t)
	first, second := cfssl.Start(t, "first"), cfssl.Start(t, "second")
	s.moveOutside(t, first)
	second.Trust(first.Cert.Raw)
	cross := first.CrossSign(second.Cert)
	for name, req := range map[string]*api.RotateAuthorityRequest{
		"by one of the cluster's own":     {},
		"without a cross-signed one":      {Next: second.Authority()},
		"with one that it has not signed": {Next: second.Authority(), Cross: second.CrossSign(second.Cert)},
		"with one of another":             {Next: second.Authority(), Cross: first.CrossSign(first.Cert)},
		"by itself":                       {Next: first.Authority(), Cross: cross},
		"by nothing that can be asked":    {Next: &api.Authority{Certificate: second.Cert.Raw, External: &api.ExternalCA{URL: "http://" + s.addr}}, Cross: cross},
	} {
		if _, err := s.RotateAuthority(deadline(t), req); api.CodeOf(err) != api.CodeInvalid && api.CodeOf(err) != api.CodeConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.RotateAuthority(deadline(t), &api.RotateAuthorityRequest{}); err == nil || !strings.Contains(err.Error(), first.URL) || !strings.Contains(err.Error(), "--cross-cert") {
		t.Errorf("replaced by one of the cluster's own: %v", err)
	}

	must(s.RotateAuthority(deadline(t), &api.RotateAuthorityRequest{Next: second.Authority(), Cross: cross, Grace: time.Hour}))
	s.renewSelf(t)
	member := s.member(t, api.RoleWorker)
	must(s.FinishRotation(deadline(t), &api.Empty{}))
	s.followRoots()
	if issuer := member.sec.Credentials().Issuer; issuer != second.Authority().ID() {
		t.Errorf("signed by %s", issuer)
	}
	s.member(t, api.RoleManager)
}
