// Package cfssl is a certificate authority for tests, outside of any cluster: an
// HTTPS server that signs as cfssl does for whom it trusts.
package cfssl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Path is that of the endpoint.
const Path = "/api/v1/cfssl/sign"

// Life is how long what it signs is good.
const Life = time.Hour

// CA signs for those whose certificates it has signed, or an authority of Trust.
type CA struct {
	URL  string
	Cert *x509.Certificate

	key    *ecdsa.PrivateKey
	mu     sync.Mutex
	trust  [][]byte
	refuse string
	spoil  func(*x509.Certificate)
	signed []string
}

// Start starts an authority on loopback that ends with the test.
func Start(t testing.TB, name string) *CA {
	t.Helper()
	return StartOn(t, name, must(net.Listen("tcp", "127.0.0.1:0")))
}

// StartOn starts one on a listener, which has the address that it is called by.
func StartOn(t testing.TB, name string, l net.Listener) *CA {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ca := &CA{key: key}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	ca.Cert = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))))

	server := httptest.NewUnstartedServer(http.HandlerFunc(ca.sign))
	server.Listener.Close()
	server.Listener = l
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	own := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	server.TLS = &tls.Config{
		ClientAuth:   tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{ca.create(&x509.Certificate{IPAddresses: []net.IP{l.Addr().(*net.TCPAddr).IP}}, own.Public())}, PrivateKey: own}},
		VerifyPeerCertificate: func(shown [][]byte, _ [][]*x509.Certificate) error {
			_, err := must(x509.ParseCertificate(shown[0])).Verify(x509.VerifyOptions{Roots: ca.pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			return err
		},
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca.URL = server.URL + Path
	return ca
}

// Authority is the authority as a cluster knows it.
func (ca *CA) Authority() *api.Authority {
	return &api.Authority{Certificate: ca.Cert.Raw, External: &api.ExternalCA{URL: ca.URL, Roots: [][]byte{ca.Cert.Raw}}}
}

// Trust has it sign for others, too, whose certificates that authority has signed.
func (ca *CA) Trust(authority []byte) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.trust = append(ca.trust, authority)
}

// Refuse has it say why it signs nothing; "": it signs again.
func (ca *CA) Refuse(why string) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.refuse = why
}

// Spoil has it change what it signs.
func (ca *CA) Spoil(how func(*x509.Certificate)) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.spoil = how
}

// Signed are the common names that it has signed for.
func (ca *CA) Signed() []string {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return append([]string(nil), ca.signed...)
}

// Client is a certificate of its own, as its operator would give one to the first
// manager: PEM.
func (ca *CA) Client() (cert, key []byte) {
	own := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := ca.create(&x509.Certificate{Subject: pkix.Name{CommonName: "operator"}}, own.Public())
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(own)))
}

// CrossSign signs the certificate of another authority.
func (ca *CA) CrossSign(next *x509.Certificate) []byte {
	return must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), RawSubject: next.RawSubject, SubjectKeyId: next.SubjectKeyId, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: next.NotAfter, KeyUsage: x509.KeyUsageCertSign,
	}, ca.Cert, next.PublicKey, ca.key))
}

func (ca *CA) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	ca.mu.Lock()
	defer ca.mu.Unlock()
	for _, der := range ca.trust {
		pool.AddCert(must(x509.ParseCertificate(der)))
	}
	return pool
}

func (ca *CA) sign(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Hosts   []string `json:"hosts"`
		Request string   `json:"certificate_request"`
		Subject struct{ CN string }
	}
	ca.mu.Lock()
	refuse, spoil := ca.refuse, ca.spoil
	ca.mu.Unlock()
	block := (*pem.Block)(nil)
	if json.NewDecoder(r.Body).Decode(&req) == nil {
		block, _ = pem.Decode([]byte(req.Request))
	}
	if refuse == "" && (r.URL.Path != Path || r.Method != http.MethodPost || block == nil) {
		refuse = "bad request"
	}
	if refuse != "" {
		w.WriteHeader(http.StatusBadRequest)
		answer(w, map[string]any{"success": false, "result": nil, "errors": []any{map[string]any{"code": 1200, "message": refuse}}})
		return
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: req.Subject.CN}}
	for _, host := range req.Hosts {
		if uri, err := url.ParseRequestURI(host); err == nil {
			template.URIs = append(template.URIs, uri)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	if spoil != nil {
		spoil(template)
	}
	ca.mu.Lock()
	ca.signed = append(ca.signed, req.Subject.CN)
	ca.mu.Unlock()
	answer(w, map[string]any{"success": true, "errors": []any{}, "result": map[string]any{
		"certificate": string(encode("CERTIFICATE", ca.create(template, csr.PublicKey))),
	}})
}

// create signs a certificate that is good for clients and servers.
func (ca *CA) create(template *x509.Certificate, public any) []byte {
	template.SerialNumber = serial()
	template.NotBefore, template.NotAfter = time.Now().Add(-5*time.Minute), time.Now().Add(Life)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if template.ExtKeyUsage == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	return must(x509.CreateCertificate(rand.Reader, template, ca.Cert, public, ca.key))
}

func answer(w io.Writer, what any) { _ = json.NewEncoder(w).Encode(what) }

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func serial() *big.Int { return must(rand.Int(rand.Reader, big.NewInt(1<<62))) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
