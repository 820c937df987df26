package pki

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base32"
	"fmt"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Token is what a node joins with. It says by which authority the cluster is
// known, so that the secret is shown to no other.
type Token struct {
	Role   api.Role // says it to people; the secret decides
	Digest Digest
	Secret string
	Addr   string // HOST:PORT of a manager; a person may leave out the port
}

// Digest is the SHA-256 of an authority's certificate.
type Digest [sha256.Size]byte

// DigestOf returns the digest of an authority's certificate, DER.
func DigestOf(certificate []byte) Digest { return sha256.Sum256(certificate) }

var digestText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// tokenVersion is the form that follows it.
const tokenVersion = "orch1"

// String is the token as people copy it: orch1-ROLE-DIGEST-SECRET@HOST:PORT.
func (t Token) String() string {
	return fmt.Sprintf("%s-%s-%s-%s@%s", tokenVersion, t.Role, digestText.EncodeToString(t.Digest[:]), t.Secret, t.Addr)
}

// ParseToken is the reverse of String. What it says of a token that is none does
// not repeat it.
func ParseToken(text string) (Token, error) {
	token, addr, ok := strings.Cut(strings.TrimSpace(text), "@")
	parts := strings.Split(token, "-")
	if !ok || addr == "" || parts[0] != tokenVersion {
		return Token{}, api.Errorf(api.CodeInvalid,
			"a join token has the form TOKEN@HOST:PORT and begins with %s-: paste what `orch join-token worker|manager` prints on a manager", tokenVersion)
	}
	damaged := func(why string) (Token, error) {
		return Token{}, api.Errorf(api.CodeInvalid, "the join token is damaged, %s: paste the whole of what `orch join-token worker|manager` prints on a manager", why)
	}
	if len(parts) != 4 {
		return damaged(fmt.Sprintf("it has %d parts and not 4", len(parts)))
	}
	t := Token{Role: api.Role(parts[1]), Secret: parts[3], Addr: addr}
	if t.Role != api.RoleWorker && t.Role != api.RoleManager {
		return damaged("it names no role")
	}
	digest, err := digestText.DecodeString(parts[2])
	if err != nil || len(digest) != len(t.Digest) {
		return damaged("its third part is no digest")
	}
	if !api.IsID(t.Secret) {
		return damaged("its last part is no secret")
	}
	copy(t.Digest[:], digest)
	return t, nil
}

// Check tells whether who shows these certificates is a manager of the token's
// cluster, and returns the cluster's authority.
func (t Token) Check(shown []*x509.Certificate, now time.Time) (*x509.Certificate, error) {
	var root *x509.Certificate
	for _, cert := range shown {
		digest := DigestOf(cert.Raw)
		if subtle.ConstantTimeCompare(digest[:], t.Digest[:]) == 1 {
			root = cert
		}
	}
	if root == nil {
		return nil, api.Errorf(api.CodeDenied,
			"the join token is of another cluster than the node at %s, or from before its authority was replaced (`orch ca rotate`): the token's secret was not sent; check the address, or get a token from that cluster's managers", t.Addr)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	between := x509.NewCertPool()
	for _, cert := range shown[1:] {
		between.AddCert(cert)
	}
	if _, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now}); err != nil {
		return nil, api.Errorf(api.CodeDenied, "the node at %s has no valid certificate of its cluster (does this machine's clock go right?): %v", t.Addr, err)
	}
	id, err := IdentityOf(shown[0])
	if err != nil {
		return nil, api.Errorf(api.CodeDenied, "the node at %s is none of the cluster: %v", t.Addr, err)
	}
	if id.Role != api.RoleManager {
		return nil, api.Errorf(api.CodeDenied, "the node at %s is a %s: join through the address of a manager", t.Addr, id.Role)
	}
	return root, nil
}
