// Package pki makes and checks the certificates of a cluster's nodes, and the
// join tokens that lead to them. Time and randomness are passed in.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// authorityLife is as long as a cluster is likely to live.
	authorityLife = 20 * 365 * 24 * time.Hour
	// backdate lets a node take part whose clock is behind.
	backdate = time.Hour

	// DefaultLife is how long a node's certificate is good. A third of it is
	// left when it is renewed, so a node may be off for a month and come back.
	// It need not be shorter for the sake of nodes that are removed or
	// demoted: managers look a caller up at each call.
	DefaultLife = 90 * 24 * time.Hour
)

// Authority signs the certificates of one cluster's nodes.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes a cluster's authority. Its key is Ed25519, as all keys
// here: small, fast, and without a random number in each signature that could
// give it away.
func NewAuthority(rand io.Reader, cluster string, now time.Time) (*Authority, error) {
	key, err := newKey(rand)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		// No two authorities of a cluster have the same name: what one signs of
		// another's must not look as if it had signed itself.
		Subject:               pkix.Name{CommonName: "orch " + cluster, SerialNumber: keyName(key)},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            1, // its successor, while that takes over
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := create(rand, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the authority of cluster %s: %w", cluster, err)
	}
	return &Authority{cert: cert, key: key}, nil
}

func keyName(key crypto.Signer) string {
	digest := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return hex.EncodeToString(digest[:8])
}

// madeHere reports whether NewAuthority made an authority's certificate.
func madeHere(cert *x509.Certificate) bool {
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok {
		return false
	}
	digest := sha256.Sum256(key)
	return cert.Subject.SerialNumber == hex.EncodeToString(digest[:8])
}

// CrossSign makes a certificate with which who trusts this authority trusts what
// the next one, which has this certificate, has signed.
func (a *Authority) CrossSign(rand io.Reader, nextCertificate []byte, now time.Time) ([]byte, error) {
	next, err := x509.ParseCertificate(nextCertificate)
	if err != nil {
		return nil, fmt.Errorf("read the next authority: %w", err)
	}
	if a.cert.MaxPathLen == 0 {
		return nil, api.Errorf(api.CodeConflict, "the cluster's authority was made by an orch that did not know how to replace it: it may sign no other")
	}
	cert, err := create(rand, &x509.Certificate{
		RawSubject:            next.RawSubject,
		SubjectKeyId:          next.SubjectKeyId,
		NotBefore:             now.Add(-backdate),
		NotAfter:              a.cert.NotAfter,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, a.cert, next.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign the next authority: %w", err)
	}
	return cert.Raw, nil
}

// LoadAuthority is the reverse of Store.
func LoadAuthority(stored api.Authority) (*Authority, error) {
	cert, err := x509.ParseCertificate(stored.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	if stored.External != nil {
		return nil, fmt.Errorf("the authority at %s keeps its key to itself", stored.External.URL)
	}
	key, err := loadKey(stored.Key)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's authority: %w", err)
	}
	return &Authority{cert: cert, key: key}, nil
}

// Store returns what LoadAuthority needs.
func (a *Authority) Store() (api.Authority, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return api.Authority{}, fmt.Errorf("write the cluster's authority: %w", err)
	}
	return api.Authority{Certificate: a.cert.Raw, Key: key}, nil
}

// Issue answers a request, as Request makes it, with a certificate for id that
// is good for life. Of what the request says only the key counts.
func (a *Authority) Issue(rand io.Reader, request []byte, id Identity, life time.Duration, now time.Time) ([]byte, error) {
	req, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	if err := id.check(); err != nil {
		return nil, api.Errorf(api.CodeInvalid, "a certificate for %s: %v", id, err)
	}
	until := now.Add(life)
	if until.After(a.cert.NotAfter) {
		until = a.cert.NotAfter
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: string(id.Node)},
		URIs:        []*url.URL{id.uri()},
		NotBefore:   now.Add(-backdate),
		NotAfter:    until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if id.Role != api.RoleUser { // users answer nobody
		template.DNSNames = []string{NodeName(id.Node), RoleName(id.Role)}
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	cert, err := create(rand, template, a.cert, req.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate for %s: %w", id, err)
	}
	return cert.Raw, nil
}

// create signs a certificate with a random serial number.
func create(rand io.Reader, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// NewKey makes a private key, as PKCS #8.
func NewKey(rand io.Reader) ([]byte, error) {
	key, err := newKey(rand)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

func newKey(rand io.Reader) (ed25519.PrivateKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fmt.Errorf("make a private key: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func loadKey(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the private key is damaged") // not what of it
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return signer, nil
}

// Request asks for a certificate for a private key: PKCS #10, which proves that
// who asks has the key.
func Request(key []byte) ([]byte, error) {
	signer, err := loadKey(key)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificateRequest(nil, &x509.CertificateRequest{}, signer)
}

// RequestKey returns the public key that a request is for, PKIX, once it has
// checked that who made the request has the private one.
func RequestKey(request []byte) ([]byte, error) {
	req, err := parseRequest(request)
	if err != nil {
		return nil, err
	}
	return bytes.Clone(req.RawSubjectPublicKeyInfo), nil
}

func parseRequest(request []byte) (*x509.CertificateRequest, error) {
	req, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = req.CheckSignature()
	}
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "the request for a certificate is damaged: %v", err)
	}
	if _, ok := req.PublicKey.(ed25519.PublicKey); !ok {
		return nil, api.Errorf(api.CodeInvalid, "the request for a certificate is for a key of type %s: Ed25519 is needed", req.PublicKeyAlgorithm)
	}
	return req, nil
}
