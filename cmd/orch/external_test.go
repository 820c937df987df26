package main

import (
	"crypto/rand"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

func TestParseExternal(t *testing.T) {
	ca := cfssl.Start(t, "corporate")
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := [][]byte{ca.Cert.Raw}
	for _, tt := range []struct {
		text string
		want *api.ExternalCA
		says string
	}{
		{"https://ca:8888/sign", &api.ExternalCA{URL: "https://ca:8888/sign"}, ""},
		{"protocol=cfssl,url=https://ca/sign,cacert=" + file, &api.ExternalCA{URL: "https://ca/sign", Roots: roots}, ""},
		{"https://ca/sign,profile=nodes", &api.ExternalCA{URL: "https://ca/sign", Profile: "nodes"}, ""},
		{"http://ca/sign", nil, "give url=URL"},
		{"url=http://ca/sign", nil, "give the https:// address"},
		{"url=https://user:word@ca/sign", nil, "give the https:// address"},
		{"protocol=acme,url=https://ca/sign", nil, "there is cfssl alone"},
		{"https://ca/sign,cacert=/nowhere", nil, "/nowhere"},
		{"https://ca/sign,cert=x", nil, `"cert=x"`},
	} {
		got, err := parseExternal(tt.text)
		if tt.says != "" {
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.text, err, diff)
		}
	}
	for _, tt := range []struct {
		flags outside
		says  string
	}{
		{outside{ca: "https://ca/sign"}, "takes --ca-cert"},
		{outside{cert: file}, "give its address with --external-ca"},
		{outside{ca: "https://ca/sign", cert: "/nowhere"}, "/nowhere"},
	} {
		if _, err := tt.flags.authority(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%+v: %v", tt.flags, err)
		}
	}
	if got, err := (&outside{ca: "https://ca/sign", cert: file}).authority(); err != nil || got.ID() != ca.Authority().ID() {
		t.Errorf("authority %+v: %v", got, err)
	}
}
