package signer_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/signer"
	"github.com/orch-dev/orch/tests/cfssl"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSign(t *testing.T) {
	ca, stranger := cfssl.Start(t, "corporate"), cfssl.Start(t, "stranger")
	own := must(tls.X509KeyPair(ca.Client()))
	foreign := must(tls.X509KeyPair(stranger.Client()))
	key := must(pki.NewKey(rand.Reader))
	req := signer.Request{CSR: must(pki.Request(key)), CommonName: "n1", Hosts: []string{"orch://c/worker/n1", "n1.node.orch"}}

	cert := must(x509.ParseCertificate(must(signer.Sign(t.Context(), ca.Authority().External, ca.Cert.Raw, &own, req))))
	if cert.Subject.CommonName != "n1" || len(cert.URIs) != 1 || cert.URIs[0].String() != req.Hosts[0] || len(cert.DNSNames) != 1 {
		t.Errorf("signed for %v, %v, %v", cert.Subject, cert.URIs, cert.DNSNames)
	}
	unnamed := *ca.Authority().External
	unnamed.Roots = nil // then the authority itself vouches for its server
	if _, err := signer.Sign(t.Context(), &unnamed, ca.Cert.Raw, &own, req); err != nil {
		t.Error(err)
	}

	odd := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("<html>" + strings.Repeat("x", 1000)))
	}))
	defer odd.Close()
	for _, tt := range []struct {
		name string
		ca   *api.ExternalCA
		own  *tls.Certificate
		says string
	}{
		{"nothing to show", ca.Authority().External, nil, "does not accept the certificate"},
		{"a foreign certificate to show", ca.Authority().External, &foreign, "does not accept the certificate"},
		{"another server", &api.ExternalCA{URL: ca.URL, Roots: [][]byte{stranger.Cert.Raw}}, &own, "nobody trusted vouches for"},
		{"nothing there", &api.ExternalCA{URL: "https://127.0.0.1:1/sign"}, &own, "connection refused"},
		{"no cfssl", &api.ExternalCA{URL: odd.URL, Roots: [][]byte{odd.Certificate().Raw}}, &own, "not as cfssl does"},
		{"another endpoint", &api.ExternalCA{URL: strings.TrimSuffix(ca.URL, "sign"), Roots: [][]byte{ca.Cert.Raw}}, &own, "refuses to sign"},
	} {
		_, err := signer.Sign(t.Context(), tt.ca, ca.Cert.Raw, tt.own, req)
		if err == nil || api.CodeOf(err) != api.CodeUnavailable || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.ca.URL) || len(err.Error()) > 800 {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	ca.Refuse("the policy says no")
	if _, err := signer.Sign(t.Context(), ca.Authority().External, ca.Cert.Raw, &own, req); err == nil || !strings.Contains(err.Error(), "the policy says no") {
		t.Errorf("refused: %v", err)
	}
}
