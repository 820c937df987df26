package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

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

// outside are the flags that name an authority outside of the cluster.
type outside struct{ ca, cert string }

func (o *outside) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.ca, "external-ca", "", "where an authority outside of the cluster signs, by cfssl's protocol: URL, or url=URL[,cacert=FILE][,profile=NAME]")
	cmd.Flags().StringVar(&o.cert, "ca-cert", "", "with --external-ca: the certificate of the authority that signs, PEM")
}

// authority reads what the flags name, nil if they name none.
func (o *outside) authority() (*api.Authority, error) {
	switch {
	case o.ca == "" && o.cert == "":
		return nil, nil
	case o.ca == "":
		return nil, fmt.Errorf("--ca-cert is the certificate of an external authority: give its address with --external-ca")
	case o.cert == "":
		return nil, fmt.Errorf("--external-ca takes --ca-cert FILE, too: the certificate of the authority that signs there")
	}
	external, err := parseExternal(o.ca)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(o.cert)
	if err != nil {
		return nil, fmt.Errorf("--ca-cert: %w", err)
	}
	certificate, err := pki.ParseAuthority(data, time.Now())
	if err != nil {
		return nil, fmt.Errorf("--ca-cert %s: %w", o.cert, err)
	}
	return &api.Authority{Certificate: certificate, External: external}, nil
}

// parseExternal reads --external-ca: an address, or what Docker Swarm takes, too.
func parseExternal(text string) (*api.ExternalCA, error) {
	if strings.HasPrefix(text, "https://") {
		text = "url=" + text
	}
	ca := &api.ExternalCA{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "url":
			ca.URL = value
		case "profile":
			ca.Profile = value
		case "cacert":
			roots, err := readCertificates(value)
			if err != nil {
				return nil, fmt.Errorf("--external-ca: %w", err)
			}
			ca.Roots = roots
		case "protocol":
			if value != "cfssl" {
				return nil, fmt.Errorf("--external-ca: protocol %q: there is cfssl alone", value)
			}
		default:
			return nil, fmt.Errorf("--external-ca: %q: give url=URL, cacert=FILE and profile=NAME, with commas between", part)
		}
	}
	return ca, ca.Validate()
}

// readCertificates reads a file of certificates, PEM.
func readCertificates(path string) (certs [][]byte, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certs = append(certs, block.Bytes)
		}
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s has no certificate, as PEM", path)
	}
	return certs, nil
}

// showOnce are the flags that name what an authority outside is shown once.
type showOnce struct{ cert, key string }

func (s *showOnce) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.cert, "ca-client-cert", "", "where an authority outside of the cluster signs: a certificate to show to it for this node's first one, PEM; it is not kept")
	cmd.Flags().StringVar(&s.key, "ca-client-key", "", "the key of --ca-client-cert, PEM")
}

// read reads what the flags name.
func (s *showOnce) read() (read api.Shown, err error) {
	if (s.cert == "") != (s.key == "") {
		return read, fmt.Errorf("--ca-client-cert and --ca-client-key belong together")
	}
	if s.cert == "" {
		return read, nil
	}
	if read.ClientCert, err = os.ReadFile(s.cert); err != nil {
		return read, fmt.Errorf("--ca-client-cert: %w", err)
	}
	if read.ClientKey, err = os.ReadFile(s.key); err != nil {
		return read, fmt.Errorf("--ca-client-key: %w", err)
	}
	return read, nil
}
