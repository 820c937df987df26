package pki

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Credentials are what a node shows to others and whom it trusts. They do not
// change: renewed ones take their place.
type Credentials struct {
	Identity Identity
	// Certificate is the node's, followed by the authority's, which a node that
	// joins wants to see.
	Certificate tls.Certificate
	// Roots are the authorities whose certificates are good.
	Roots *x509.CertPool
}

// NewCredentials puts together a node's private key (PKCS #8), its certificate
// and the authorities', the issuer's among them (DER). It checks that they
// belong together, not whether the certificate is still good.
func NewCredentials(key, certificate []byte, roots [][]byte) (*Credentials, error) {
	signer, err := loadKey(key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return nil, errors.New("the node's certificate is for another key")
	}
	c := &Credentials{
		Certificate: tls.Certificate{Certificate: [][]byte{certificate}, PrivateKey: signer, Leaf: leaf},
		Roots:       x509.NewCertPool(),
	}
	if c.Identity, err = IdentityOf(leaf); err != nil {
		return nil, err
	}
	for _, der := range roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the authority's certificate: %w", err)
		}
		c.Roots.AddCert(root)
		if bytes.Equal(root.RawSubject, leaf.RawIssuer) && leaf.CheckSignatureFrom(root) == nil {
			c.Certificate.Certificate = append(c.Certificate.Certificate, der)
		}
	}
	if len(c.Certificate.Certificate) == 1 {
		return nil, errors.New("the node's certificate is not from the cluster's authority")
	}
	return c, nil
}

// Expires is when the node's certificate ends.
func (c *Credentials) Expires() time.Time { return c.Certificate.Leaf.NotAfter }

// RenewAt is when the certificate is to be renewed: after two thirds of its life.
func (c *Credentials) RenewAt() time.Time {
	leaf := c.Certificate.Leaf
	from := leaf.NotBefore.Add(backdate)
	return from.Add(leaf.NotAfter.Sub(from) * 2 / 3)
}
