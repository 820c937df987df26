package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// Identity is whom a certificate is about: a node or, with api.RoleUser, a user,
// whose ID is in the place of the node's.
type Identity struct {
	Cluster string
	Role    api.Role
	Node    api.NodeID
}

const scheme = "orch"

// String is the identity as certificates have it: orch://CLUSTER/ROLE/NODE.
func (id Identity) String() string { return id.uri().String() }

func (id Identity) uri() *url.URL {
	return &url.URL{Scheme: scheme, Host: id.Cluster, Path: "/" + string(id.Role) + "/" + string(id.Node)}
}

// ParseIdentity is the reverse of String.
func ParseIdentity(text string) (Identity, error) {
	rest, ok := strings.CutPrefix(text, scheme+"://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return Identity{}, fmt.Errorf("%q does not name a node", text)
	}
	id := Identity{Cluster: parts[0], Role: api.Role(parts[1]), Node: api.NodeID(parts[2])}
	if err := id.check(); err != nil {
		return Identity{}, fmt.Errorf("%q does not name a node: %w", text, err)
	}
	return id, nil
}

func (id Identity) check() error {
	switch {
	case !api.IsID(id.Cluster):
		return errors.New("the cluster's ID is none")
	case !api.IsID(string(id.Node)):
		return errors.New("the node's ID is none")
	case id.Role != api.RoleWorker && id.Role != api.RoleManager && id.Role != api.RoleUser:
		return fmt.Errorf("the role %q is none", id.Role)
	}
	return nil
}

// IdentityOf returns whom a certificate is about. It does not check who signed.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("the certificate of %q is not one of a node", cert.Subject.CommonName)
	}
	return ParseIdentity(cert.URIs[0].String())
}

// NodeName and RoleName are the names in a node's certificate by which who
// connects makes sure to have reached that node, or one of that role.
func NodeName(node api.NodeID) string { return string(node) + ".node.orch" }

func RoleName(role api.Role) string { return string(role) + ".role.orch" }
