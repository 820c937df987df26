package daemon

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/tests/cfssl"
)

// A new cluster gets its first certificate from an authority outside, and then
// shows that to it for others.
func TestFoundOutside(t *testing.T) {
	ca := cfssl.Start(t, "corporate")
	id, err := loadIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cluster := &api.Cluster{ID: api.NewID(rand.Reader), CertificateLife: pki.DefaultLife}
	id.ClusterID, id.Role = cluster.ID, api.RoleManager
	req := &api.InitRequest{Authority: ca.Authority()}
	if err := (&daemon{}).found(t.Context(), id, cluster, req); err == nil || !strings.Contains(err.Error(), ca.URL) {
		t.Errorf("without a certificate to show: %v", err)
	}
	req.ClientCert, req.ClientKey = ca.Client()
	d := &daemon{}
	if err := d.found(t.Context(), id, cluster, req); err != nil {
		t.Fatal(err)
	}
	if cluster.Authority.Key != nil || id.credentials.Issuer != ca.Authority().ID() || id.credentials.Identity.Node != id.Node {
		t.Errorf("founded: %+v", id.credentials.Identity)
	}

	restored := identity{Node: id.Node, Key: id.Key, ClusterID: cluster.ID, Role: api.RoleManager}
	if err := restored.sign(t.Context(), cluster, &api.Shown{}); err == nil || !strings.Contains(err.Error(), ca.URL) {
		t.Errorf("restored without a certificate to show: %v", err)
	}
	if err := restored.sign(t.Context(), cluster, &req.Shown); err != nil || restored.credentials.Issuer != ca.Authority().ID() {
		t.Errorf("restored: %v", err)
	}

	d.id = *id
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	joining := pki.Identity{Cluster: cluster.ID, Role: api.RoleWorker, Node: api.NodeID(api.NewID(rand.Reader))}
	certificate, err := d.signOutside(t.Context(), &cluster.Authority, request, joining)
	if err != nil {
		t.Fatal(err)
	}
	if own, err := pki.NewCredentials(key, api.Certificate{Node: certificate, Roots: cluster.Roots()}); err != nil || own.Identity != joining {
		t.Errorf("signed: %+v, %v", own, err)
	}
	ca.Refuse("closed on Sundays")
	if _, err := d.signOutside(t.Context(), &cluster.Authority, request, joining); err == nil || !strings.Contains(err.Error(), "closed on Sundays") || !strings.Contains(err.Error(), ca.URL) {
		t.Errorf("refused: %v", err)
	}
}
