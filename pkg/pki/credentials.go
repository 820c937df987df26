package pki

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Credentials are what a node shows to others and whom it trusts. They do not
// change: renewed ones take their place.
type Credentials struct {
	Identity Identity
	// Certificate is the node's, followed by what leads to an authority, and by
	// the authorities, which a node that joins wants to see.
	Certificate tls.Certificate
	// Roots are the authorities whose certificates are good.
	Roots *x509.CertPool
	// Issuer is the ID of the one that signed the node's.
	Issuer string

	issued time.Time // when it was, as far as the certificate says
}

// NewCredentials puts together a node's private key (PKCS #8), its certificate
// and the authorities', the issuer's among them. It checks that they belong
// together, not whether the certificate is still good.
func NewCredentials(key []byte, issued api.Certificate) (*Credentials, error) {
	signer, err := loadKey(key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(issued.Node)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return nil, errors.New("the node's certificate is for another key")
	}
	c := &Credentials{
		Certificate: tls.Certificate{Certificate: [][]byte{issued.Node}, PrivateKey: signer, Leaf: leaf},
	}
	if c.Identity, err = IdentityOf(leaf); err != nil {
		return nil, err
	}
	between, err := poolOf(issued.Chain)
	if err != nil {
		return nil, err
	}
	if c.Roots, err = poolOf(issued.Roots); err != nil {
		return nil, err
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.Roots, Intermediates: between, CurrentTime: leaf.NotAfter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("the node's certificate is not from the cluster's authority: %w", err)
	}
	root := issuer(chains)
	c.Issuer = (&api.Authority{Certificate: root.Raw}).ID()
	if c.issued = leaf.NotBefore; madeHere(root) {
		c.issued = leaf.NotBefore.Add(backdate)
	}
	c.Certificate.Certificate = append(append(c.Certificate.Certificate, issued.Chain...), issued.Roots...)
	return c, nil
}

// issuer is the authority at the end of the shortest of these chains:
// a longer one leads by the new authority to the old.
func issuer(chains [][]*x509.Certificate) *x509.Certificate {
	best := chains[0]
	for _, chain := range chains {
		if len(chain) < len(best) {
			best = chain
		}
	}
	return best[len(best)-1]
}

func poolOf(certs [][]byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, der := range certs {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the authority's certificate: %w", err)
		}
		pool.AddCert(cert)
	}
	return pool, nil
}

// Expires is when the node's certificate ends.
func (c *Credentials) Expires() time.Time { return c.Certificate.Leaf.NotAfter }

// RenewAt is when the certificate is to be renewed: after two thirds of its life,
// or up to a tenth of it earlier, each certificate at another time, so that nodes
// that joined together do not ask together.
func (c *Credentials) RenewAt() time.Time {
	leaf, life := c.Certificate.Leaf, c.Life()
	var random [2]byte
	copy(random[:], leaf.Signature) // differs with the serial number
	early := life / 10 / (1 << 16) * time.Duration(binary.BigEndian.Uint16(random[:]))
	return leaf.NotAfter.Add(-life/3 - early)
}

// Life is how long the node's certificate was good for when it was issued.
func (c *Credentials) Life() time.Duration { return c.Expires().Sub(c.issued) }

// Outdated reports whether somebody who shows these certificates trusts other
// authorities than these credentials.
func (c *Credentials) Outdated(shown []*x509.Certificate) bool {
	theirs, some := x509.NewCertPool(), false
	for _, cert := range shown {
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			theirs.AddCert(cert)
			some = true
		}
	}
	return some && !theirs.Equal(c.Roots)
}
