package daemon

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/signer"
)

// found gives a new cluster its authority, and this node its first certificate.
func (d *daemon) found(ctx context.Context, id *identity, cluster *api.Cluster, req *api.InitRequest) error {
	request, err := pki.Request(id.Key)
	if err != nil {
		return err
	}
	self := pki.Identity{Cluster: cluster.ID, Role: id.Role, Node: id.Node}
	var certificate []byte
	if req.Authority == nil {
		certificate, err = foundAuthority(cluster, request, self)
	} else {
		certificate, err = foundOutside(ctx, cluster, req, request, self)
	}
	if err != nil {
		return err
	}
	return id.certify(id.Key, api.Certificate{Node: certificate, Roots: cluster.Roots()})
}

// foundAuthority makes the authority of a new cluster, and has it sign.
func foundAuthority(cluster *api.Cluster, request []byte, id pki.Identity) ([]byte, error) {
	now := time.Now()
	authority, err := pki.NewAuthority(rand.Reader, cluster.ID, now)
	if err != nil {
		return nil, err
	}
	if cluster.Authority, err = authority.Store(); err != nil {
		return nil, err
	}
	return authority.Issue(rand.Reader, request, id, cluster.CertificateLife, now)
}

// foundOutside takes an authority outside of the cluster, and has it sign.
func foundOutside(ctx context.Context, cluster *api.Cluster, req *api.InitRequest, request []byte, id pki.Identity) ([]byte, error) {
	if req.Authority.External == nil || req.Authority.Key != nil {
		return nil, api.Errorf(api.CodeInvalid, "an authority of the cluster's own is made, not given")
	}
	if err := req.Authority.External.Validate(); err != nil {
		return nil, err
	}
	cluster.Authority = *req.Authority
	return signFirst(ctx, &cluster.Authority, &req.Shown, request, id)
}

// signFirst has an external authority sign for a manager that is alone. For this once
// it is shown what the user has given: this node has no certificate of its yet.
func signFirst(ctx context.Context, authority *api.Authority, shown *api.Shown, request []byte, id pki.Identity) ([]byte, error) {
	if len(shown.ClientCert) == 0 {
		return signOutside(ctx, authority, nil, request, id)
	}
	own, err := tls.X509KeyPair(shown.ClientCert, shown.ClientKey)
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "the certificate and the key to show to the external CA: %v", err)
	}
	return signOutside(ctx, authority, &own, request, id)
}

// signOutside has an external authority sign, which is shown this manager's own
// certificate.
func (d *daemon) signOutside(ctx context.Context, authority *api.Authority, request []byte, id pki.Identity) ([]byte, error) {
	own := d.credentials()
	if own == nil {
		return nil, d.notMember()
	}
	return signOutside(ctx, authority, &own.Certificate, request, id)
}

func signOutside(ctx context.Context, authority *api.Authority, own *tls.Certificate, request []byte, id pki.Identity) ([]byte, error) {
	certificate, err := signer.Sign(ctx, authority.External, authority.Certificate, own, signer.Request{
		CSR: request, CommonName: string(id.Node), Hosts: id.Hosts(),
	})
	if err != nil {
		return nil, err
	}
	if err := pki.CheckIssued(certificate, request, authority.Certificate, id, time.Now()); err != nil {
		return nil, fmt.Errorf("the external CA at %s: %w", authority.External.URL, err)
	}
	return certificate, nil
}
