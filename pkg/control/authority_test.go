package control

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// renewed has a node get a new certificate and report it, as its daemon does.
func (s *site) renewed(t *testing.T, j *joiner) {
	t.Helper()
	fresh := newKeyed()
	res, err := rpc.Call[api.RenewRequest, api.Certificate](deadline(t), j.client, api.ProcRenew, &api.RenewRequest{Request: fresh.request})
	if err != nil {
		t.Fatal(err)
	}
	j.use(s, must(pki.NewCredentials(fresh.key, *res)))
	s.reportIssuer(t, j.client, j.node.ID, j.sec.Credentials().Issuer)
}

func (s *site) reportIssuer(t *testing.T, client *rpc.Client, id api.NodeID, issuer string) {
	t.Helper()
	if _, err := rpc.Call[api.Report, api.ReportResponse](deadline(t), client, api.ProcReport, &api.Report{Node: id, Info: &api.NodeInfo{Issuer: issuer}}); err != nil {
		t.Fatal(err)
	}
}

// renewSelf does the same for the manager.
func (s *site) renewSelf(t *testing.T) {
	t.Helper()
	snap, fresh := s.Replica.Snapshot(), newKeyed()
	own := must(pki.NewCredentials(fresh.key, *must(s.issue(deadline(t), snap, fresh.request, snap.Nodes[s.Node]))))
	s.own.Store(&ownKey{own, fresh.key})
	s.reportIssuer(t, rpc.NewPool(s.sec).Manager(s.addr), s.Node, own.Issuer)
}

// followRoots makes what the manager trusts what the cluster does.
func (s *site) followRoots() {
	own, cluster := s.own.Load(), s.Replica.Snapshot().Cluster
	s.own.Store(&ownKey{must(pki.NewCredentials(own.key, api.Certificate{
		Node: own.Certificate.Certificate[0], Chain: cluster.Chain(), Roots: cluster.Roots(),
	})), own.key})
}

// An authority is replaced with nodes that have and that have not renewed; tokens
// follow; the old authority is worth nothing at the end.
func TestRotateAuthority(t *testing.T) {
	s := newSite(t)
	prompt, late := s.member(t, api.RoleWorker), s.member(t, api.RoleManager)
	oldRoot, oldToken := s.Replica.Snapshot().Cluster.Authority, s.tokens(t).Worker
	works := func(what string, nodes ...*joiner) {
		t.Helper()
		for _, j := range nodes {
			if _, err := rpc.Call[api.Report, api.ReportResponse](deadline(t), rpc.NewPool(j.sec).Manager(s.addr), api.ProcReport, &api.Report{Node: j.node.ID}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	status, err := s.RotateAuthority(deadline(t), &api.RotateAuthorityRequest{Grace: time.Hour})
	if err != nil || len(status.Waiting) != 3 || !bytes.Equal(status.Authority, oldRoot.Certificate) || status.Next == nil {
		t.Fatalf("%+v, %v", status, err)
	}
	for _, grace := range []time.Duration{-1, maxGrace + 1} {
		if _, err := s.RotateAuthority(deadline(t), &api.RotateAuthorityRequest{Grace: grace}); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("a grace of %v: %v", grace, err)
		}
	}
	if _, err := s.RotateAuthority(deadline(t), &api.RotateAuthorityRequest{}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("again: %v", err)
	}
	if _, err := s.FinishRotation(deadline(t), &api.Empty{}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("finished before the leader has renewed: %v", err)
	}
	works("begun", prompt, late)

	s.renewed(t, prompt)
	works("one has renewed", prompt, late)
	s.renewSelf(t)
	works("the manager has renewed", prompt, late)
	if status = must(s.Authority(deadline(t), &api.Empty{})); len(status.Waiting) != 1 || status.Waiting[0] != late.node.Hostname {
		t.Errorf("waits for %v", status.Waiting)
	}
	if token := must(pki.ParseToken(s.tokens(t).Worker)); hex.EncodeToString(token.Digest[:]) != s.own.Load().Issuer {
		t.Error("the token names an authority that the manager does not show")
	}
	newcomer := newJoiner()
	for what, token := range map[string]string{"an old token": oldToken, "a new token": s.tokens(t).Worker} {
		if _, err := s.join(t, newcomer, token); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	works("a node has joined", newcomer, prompt, late)

	if _, err := s.FinishRotation(deadline(t), &api.Empty{}); err != nil {
		t.Fatal(err)
	}
	s.followRoots()
	works("finished", prompt, newcomer)
	if _, err := rpc.Call[api.Report, api.ReportResponse](deadline(t), rpc.NewPool(late.sec).Manager(s.addr), api.ProcReport, &api.Report{Node: late.node.ID}); err == nil {
		t.Error("a certificate of the old authority is good")
	}
	if _, err := s.join(t, newJoiner(), oldToken); err == nil || !strings.Contains(err.Error(), "authority was replaced") {
		t.Errorf("an old token: %v", err)
	}
	if _, err := s.join(t, newJoiner(), s.tokens(t).Worker); err != nil {
		t.Errorf("a new token: %v", err)
	}
	want := &api.AuthorityStatus{Authority: s.Replica.Snapshot().Cluster.Authority.Certificate, Nodes: 5}
	if diff := cmp.Diff(want, must(s.Authority(deadline(t), &api.Empty{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := s.FinishRotation(deadline(t), &api.Empty{}); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("finished twice: %v", err)
	}
}

// The next authority's key stays with the managers, and is shown to nobody.
func TestNextAuthorityStaysSecret(t *testing.T) {
	s := newSite(t)
	worker := s.member(t, api.RoleWorker)
	if _, err := s.RotateAuthority(deadline(t), &api.RotateAuthorityRequest{}); err != nil {
		t.Fatal(err)
	}
	key := s.Replica.Snapshot().Cluster.Rotation.Next.Key
	if _, err := x509.ParsePKCS8PrivateKey(key); err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	err := rpc.Stream(deadline(t), worker.client, api.ProcSession, &api.SessionRequest{Node: worker.node.ID}, func(u *api.Update) error {
		_ = json.NewEncoder(&shown).Encode(u)
		return io.EOF
	})
	_ = json.NewEncoder(&shown).Encode(must(s.Authority(deadline(t), &api.Empty{})))
	own, _ := json.Marshal(key)
	if !strings.Contains(shown.String(), `"rotation"`) || strings.Contains(shown.String(), string(own)) {
		t.Errorf("%v: %s", err, &shown)
	}
}
