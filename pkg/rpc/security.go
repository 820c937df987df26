package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/quiet"
)

// The protocols that share the API port, as TLS negotiates them (RFC 7301). Raft's
// has the epoch of the managers' group at its end, if it is not the first: managers
// of two groups find no protocol that both speak.
const (
	protocolAPI  = "h2"
	protocolRaft = "orch-raft/1"
)

// raftProtocol is what managers of the group speak that the node is in.
func (s *Security) raftProtocol() string {
	if s.Epoch == nil || s.Epoch() == 0 {
		return protocolRaft
	}
	return fmt.Sprint(protocolRaft, ".", s.Epoch())
}

func isRaft(protocol string) bool { return strings.HasPrefix(protocol, protocolRaft) }

// dialTimeout bounds a connection's TCP and TLS handshakes, each side's.
const dialTimeout = 4 * time.Second

// Security protects what passes between nodes: TLS 1.3 in which both sides show
// a certificate of the cluster. Each new connection uses the newest credentials;
// those that are open stay.
type Security struct {
	// Credentials are the node's; nil while it is in no cluster.
	Credentials func() *pki.Credentials
	Now         func() time.Time
	// Epoch is that of the managers' group that the node is in; nil: the first.
	Epoch func() uint64
}

var errNotMember = errors.New("this node is in no cluster")

// client is the configuration for a connection to a node with that name in its
// certificate.
func (s *Security) client(name, protocol string) (*tls.Config, error) {
	own := s.Credentials()
	if own == nil {
		return nil, errNotMember
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       s.Now,
		RootCAs:    own.Roots,
		ServerName: name,
		NextProtos: []string{protocol},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &own.Certificate, nil
		},
	}, nil
}

// server is the configuration for the API port. Callers without a certificate
// get through, for they may want to join; one that is not of this cluster or has
// expired ends the connection, and so does Raft without a manager's.
func (s *Security) server(raft bool) *tls.Config {
	config := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		own := s.Credentials()
		if own == nil {
			return nil, errNotMember
		}
		protocols := []string{protocolAPI}
		if raft {
			protocols = append(protocols, s.raftProtocol())
		}
		return &tls.Config{
			MinVersion:             tls.VersionTLS13,
			Time:                   s.Now,
			Certificates:           []tls.Certificate{own.Certificate},
			ClientAuth:             tls.VerifyClientCertIfGiven,
			ClientCAs:              own.Roots,
			NextProtos:             protocols,
			SessionTicketsDisabled: true, // each connection is checked anew
			VerifyConnection: func(state tls.ConnectionState) error {
				return checkPeer(&state, own.Identity.Cluster)
			},
		}, nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: config}
}

// checkPeer looks at what a verified certificate says.
func checkPeer(state *tls.ConnectionState, cluster string) error {
	var peer pki.Identity
	if len(state.PeerCertificates) > 0 {
		var err error
		if peer, err = pki.IdentityOf(state.PeerCertificates[0]); err != nil {
			return err
		}
		if peer.Cluster != cluster {
			return fmt.Errorf("%s is of another cluster", peer)
		}
	}
	if isRaft(state.NegotiatedProtocol) && peer.Role != api.RoleManager {
		return errors.New("raft is for managers")
	}
	return nil
}

// dialAPI connects to the API of a node.
func (s *Security) dialAPI(ctx context.Context, t target) (net.Conn, error) {
	config, err := s.client(t.name, protocolAPI)
	if err != nil {
		return nil, err
	}
	return dialAPI(ctx, t.addr, config)
}

// DialRaft connects to another manager's Raft on its API port.
func DialRaft(ctx context.Context, sec *Security, addr string) (net.Conn, error) {
	config, err := sec.client(pki.RoleName(api.RoleManager), sec.raftProtocol())
	if err != nil {
		return nil, err
	}
	return dial(ctx, addr, config)
}

// NewJoinClient calls the manager that a token names, for a node that has no
// certificate yet. Nothing is sent to a node that is not of the token's cluster.
func NewJoinClient(token pki.Token, now func() time.Time) *Client {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       now,
		NextProtos: []string{protocolAPI},
		// What there is to trust is the token's digest.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := token.Check(state.PeerCertificates, now())
			return err
		},
	}
	return newClient(func(ctx context.Context) (net.Conn, error) { return dialAPI(ctx, token.Addr, config) })
}

func dial(ctx context.Context, addr string, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	secure := tls.Client(quiet.Conn(conn), config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, explain(err))
	}
	return secure, nil
}

// dialAPI waits for the server's first byte, which comes as soon as it has
// accepted the client's certificate (RFC 9113, section 3.4): in TLS 1.3 the
// client is done before that, and would learn why it is refused by chance only.
func dialAPI(ctx context.Context, addr string, config *tls.Config) (net.Conn, error) {
	conn, err := dial(ctx, addr, config)
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(dialTimeout))
	greeted := &greetedConn{Conn: conn, first: make([]byte, 1)}
	if _, err := conn.Read(greeted.first); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, explain(err))
	}
	_ = conn.SetReadDeadline(time.Time{})
	return greeted, nil
}

// greetedConn is a connection whose first byte has been read.
type greetedConn struct {
	net.Conn
	first []byte
}

func (c *greetedConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 && len(b) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// Refused reports whether a connection could not be made because who answered does
// not want it.
func Refused(err error) bool {
	var remote *net.OpError
	return errors.As(err, &remote) && remote.Op == "remote error"
}

// explain says in other words what TLS says.
func explain(err error) error {
	var record tls.RecordHeaderError
	var host x509.HostnameError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &record):
		return fmt.Errorf("what answers there does not speak TLS: %w", err)
	case errors.As(err, &authority):
		return fmt.Errorf("it is not a node of this cluster: %w", err)
	case errors.As(err, &host):
		return fmt.Errorf("it is not the node looked for: %w", err)
	case Refused(err) && strings.Contains(err.Error(), "no application protocol"):
		return fmt.Errorf("it is no manager of the group that this node is in: %w", err)
	case Refused(err):
		return fmt.Errorf("it does not accept this node's certificate: %w", err)
	}
	return err
}
