package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"time"
)

// Authority is a cluster's certificate authority.
type Authority struct {
	Certificate []byte `json:"certificate"`   // X.509, DER
	Key         []byte `json:"key,omitempty"` // PKCS #8; for managers only
	// External: it signs elsewhere, and Key is none.
	External *ExternalCA `json:"external,omitempty"`
}

// ExternalCA is where an authority outside of the cluster signs: an endpoint "sign"
// of cfssl. Managers show it their own certificates.
type ExternalCA struct {
	URL     string `json:"url"`               // https://HOST:PORT/api/v1/cfssl/sign
	Profile string `json:"profile,omitempty"` // cfssl's; empty: its default
	// Roots vouch for what answers there: X.509, DER. None: the authority itself, and
	// those that the manager's machine trusts.
	Roots [][]byte `json:"roots,omitempty"`
}

// Shown is what an authority outside is shown for the first certificate of a manager
// that is alone: PEM, and not kept. Empty: nothing.
type Shown struct {
	ClientCert []byte `json:"clientCert,omitempty"`
	ClientKey  []byte `json:"clientKey,omitempty"`
}

// Validate refuses what cannot be asked.
func (ca *ExternalCA) Validate() error {
	u, err := url.Parse(ca.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return Errorf(CodeInvalid, "external CA %q: give the https:// address of its endpoint, such as https://ca.example.com:8888/api/v1/cfssl/sign", ca.URL)
	}
	return nil
}

// ID names the authority: the SHA-256 of its certificate, in hexadecimal.
func (a *Authority) ID() string {
	digest := sha256.Sum256(a.Certificate)
	return hex.EncodeToString(digest[:])
}

// Rotation is the replacement of a cluster's authority. While it goes on, nodes
// trust both and get certificates from Next, with which comes Cross, so that a
// node that has not heard of Next trusts them too. The old authority is dropped
// once every node and user has such a certificate, or at Until.
type Rotation struct {
	Next    Authority `json:"next"`
	Cross   []byte    `json:"cross"` // Next's key, signed by the old: X.509, DER
	Started time.Time `json:"started"`
	// Until is how long nodes that are down, and users, are waited for.
	Until time.Time `json:"until"`
}

// Issuer is the authority that signs now.
func (c *Cluster) Issuer() *Authority {
	if c.Rotation != nil {
		return &c.Rotation.Next
	}
	return &c.Authority
}

// Roots are the certificates of the authorities that nodes trust now.
func (c *Cluster) Roots() [][]byte {
	roots := [][]byte{c.Authority.Certificate}
	if c.Rotation != nil {
		roots = append(roots, c.Rotation.Next.Certificate)
	}
	return roots
}

// Chain is what comes with a certificate that is issued now.
func (c *Cluster) Chain() [][]byte {
	if c.Rotation != nil {
		return [][]byte{c.Rotation.Cross}
	}
	return nil
}

// Unrenewed are the nodes whose certificate is not from the authority that signs
// now, as far as they have said, by ID.
func (s *Snapshot) Unrenewed() []*Node {
	var out []*Node
	issuer := s.Cluster.Issuer().ID()
	for _, n := range Sorted(s.Nodes) {
		if n.Info.Issuer != issuer {
			out = append(out, n)
		}
	}
	return out
}

// UnrenewedUsers are the users whose certificate is not from the authority that
// signs now.
func (c *Cluster) UnrenewedUsers() []User {
	var out []User
	issuer := c.Issuer().ID()
	for _, u := range c.Users {
		if u.Issuer != issuer {
			out = append(out, u)
		}
	}
	return out
}

// AuthorityStatus is what `orch ca` shows.
type AuthorityStatus struct {
	Authority []byte `json:"authority"` // its certificate: X.509, DER
	// Next and what follows are set while the authority is replaced.
	Next    []byte    `json:"next,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Nodes   int       `json:"nodes"`
	// External is where the authority that signs now does so, if elsewhere.
	External string `json:"external,omitempty"`
	// Waiting are the names of the nodes that have not renewed their
	// certificates, Down those of them that are down, and Users are users who
	// have not: they do when they use the cluster.
	Waiting []string `json:"waiting,omitempty"`
	Down    []string `json:"down,omitempty"`
	Users   []string `json:"users,omitempty"`
}

// RotateAuthorityRequest replaces the cluster's authority.
type RotateAuthorityRequest struct {
	// Grace is how long nodes that are down, and users, are waited for.
	Grace time.Duration `json:"grace"`
	// Next is the external authority that is to sign; nil: one that is made.
	Next *Authority `json:"next,omitempty"`
	// Cross is its certificate as the one that signs now signed it, where managers
	// cannot do that.
	Cross []byte `json:"cross,omitempty"`
}

// Rotated is the cluster once its authority has been replaced.
func (c *Cluster) Rotated() *Cluster {
	next := *c
	next.Authority, next.Rotation = c.Rotation.Next, nil
	return &next
}
