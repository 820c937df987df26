package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// ParseAuthority reads the certificate of an authority outside of the cluster, PEM.
// It may be a root, or an intermediate one, which nodes then trust by itself.
func ParseAuthority(data []byte, now time.Time) ([]byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, api.Errorf(api.CodeInvalid, "give one certificate, as PEM: the one of the authority that signs")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	switch {
	case err != nil:
		return nil, api.Errorf(api.CodeInvalid, "the authority's certificate is damaged: %v", err)
	case !cert.IsCA:
		return nil, api.Errorf(api.CodeInvalid, "the certificate of %s is none of an authority", cert.Subject)
	case now.After(cert.NotAfter):
		return nil, api.Errorf(api.CodeInvalid, "the authority's certificate has ended on %s", cert.NotAfter.Format(time.RFC3339))
	}
	return block.Bytes, nil
}

// Hosts are the names that a certificate for the identity has.
func (id Identity) Hosts() []string {
	if id.Role == api.RoleUser { // users answer nobody
		return []string{id.String()}
	}
	return []string{id.String(), NodeName(id.Node), RoleName(id.Role)}
}

// CheckIssued tells whether what an authority outside has made is what was asked of
// it: a certificate for the identity and the request's key, and good to call with
// and, but for a user's, to answer with.
func CheckIssued(certificate, request, authority []byte, id Identity, now time.Time) error {
	req, err := parseRequest(request)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(certificate)
	if err != nil {
		return api.Errorf(api.CodeUnavailable, "the certificate is damaged: %v", err)
	}
	roots, err := poolOf([][]byte{authority})
	if err != nil {
		return err
	}
	if !bytes.Equal(cert.RawSubjectPublicKeyInfo, req.RawSubjectPublicKeyInfo) {
		return api.Errorf(api.CodeUnavailable, "the certificate is for another key than was asked for")
	}
	if got, err := IdentityOf(cert); err != nil || got != id {
		return api.Errorf(api.CodeUnavailable, "the certificate is for %v, not for %s: the CA has to take over the names of the request, URIs among them (%v)", cert.URIs, id, err)
	}
	usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if id.Role != api.RoleUser {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
		for _, name := range id.Hosts()[1:] {
			if err := cert.VerifyHostname(name); err != nil {
				return api.Errorf(api.CodeUnavailable, "the certificate lacks a name that was asked for: %v", err)
			}
		}
	}
	for _, usage := range usages {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return api.Errorf(api.CodeUnavailable, "the certificate is not good for nodes (it has to be signed by the authority that was named, for client and server authentication): %v", err)
		}
	}
	return nil
}

// CheckCross tells whether a certificate of the next authority is signed by the old,
// so that who trusts the old trusts what the next has signed.
func CheckCross(cross, old, next []byte, now time.Time) error {
	cert, err := x509.ParseCertificate(cross)
	if err != nil {
		return api.Errorf(api.CodeInvalid, "the cross-signed certificate is damaged: %v", err)
	}
	of, err := x509.ParseCertificate(next)
	if err != nil {
		return api.Errorf(api.CodeInvalid, "the next authority's certificate is damaged: %v", err)
	}
	roots, err := poolOf([][]byte{old})
	if err != nil {
		return err
	}
	if !bytes.Equal(cert.RawSubjectPublicKeyInfo, of.RawSubjectPublicKeyInfo) || !bytes.Equal(cert.RawSubject, of.RawSubject) || !cert.IsCA {
		return api.Errorf(api.CodeInvalid, "the cross-signed certificate is none of the next authority's: it needs its name and its key")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return api.Errorf(api.CodeInvalid, "the cross-signed certificate is not signed by the authority that is to be replaced: %v", err)
	}
	return nil
}
