package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/netdev"
	"github.com/orch-dev/orch/pkg/rpc"
)

// enrollTimeout bounds what a new member waits for: a leader, or being one.
const enrollTimeout = 15 * time.Second

// Init makes a new cluster with this node as its first manager.
func (d *daemon) Init(ctx context.Context, req *api.InitRequest) (*api.InitResponse, error) {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	id := d.identity()
	if id.member() {
		return nil, api.Errorf(api.CodeConflict, "this node is in a cluster already (%s)", id.ClusterID)
	}
	addr, err := d.advertised(req.AdvertiseAddr)
	if err != nil {
		return nil, err
	}
	pool, err := checkPool(req.Pool)
	if err != nil {
		return nil, err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	id.ClusterID, id.Role, id.Addr, id.Pool, id.GossipKey = api.NewID(rand.Reader), api.RoleManager, addr, pool.String(), key
	id.Managers = []string{d.apiAddr(addr)}

	cluster := &api.Cluster{
		ID: id.ClusterID, Pool: id.Pool, GossipKey: key, LeaseTimeout: d.lease,
		WorkerToken: newSecret(api.RoleWorker), ManagerToken: newSecret(api.RoleManager),
	}
	err = d.enroll(id, func(m *member) error {
		return m.bootstrap(ctx, cluster, d.nodeObject(ctx, id, m))
	})
	if err != nil {
		return nil, err
	}
	return &api.InitResponse{NodeID: id.Node, Tokens: api.JoinTokens{
		Worker: cluster.WorkerToken + "@" + d.apiAddr(addr), Manager: cluster.ManagerToken + "@" + d.apiAddr(addr),
	}}, nil
}

// Join makes this node a member of the token's cluster.
func (d *daemon) Join(ctx context.Context, req *api.JoinRequest) (*api.JoinResponse, error) {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	id := d.identity()
	if id.member() {
		return nil, api.Errorf(api.CodeConflict, "this node is in a cluster already (%s)", id.ClusterID)
	}
	secret, remote, err := parseToken(req.Token)
	if err != nil {
		return nil, err
	}
	addr, err := d.advertised(req.AdvertiseAddr)
	if err != nil {
		return nil, err
	}
	id.Addr = addr
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	admitted, err := rpc.Call[api.AdmitRequest, api.AdmitResponse](ctx, d.peers.Get(remote), api.ProcAdmit,
		&api.AdmitRequest{Secret: secret, Node: *d.nodeObject(ctx, id, nil)})
	if err != nil {
		return nil, fmt.Errorf("join through %s: %w", remote, err)
	}
	if _, err := checkPool(admitted.Pool); err != nil {
		return nil, err
	}
	id.ClusterID, id.Role, id.Pool, id.GossipKey, id.Managers = admitted.ClusterID, admitted.Role, admitted.Pool, admitted.GossipKey, admitted.Managers
	err = d.enroll(id, func(m *member) error {
		if id.Role != api.RoleManager {
			return nil
		}
		if _, err := rpc.Call[api.AddVoterRequest, api.Empty](ctx, d.peers.Get(remote), api.ProcAddVoter, &api.AddVoterRequest{Node: id.Node}); err != nil {
			return fmt.Errorf("join through %s: %w", remote, err)
		}
		return m.awaitState(ctx)
	})
	if err != nil {
		return nil, err
	}
	return &api.JoinResponse{NodeID: id.Node, Role: id.Role}, nil
}

// enroll starts the parts of a member, lets finish make it one, and keeps the
// identity. If anything fails the node is what it was before.
func (d *daemon) enroll(id identity, finish func(*member) error) error {
	if err := os.RemoveAll(d.raftDir()); err != nil { // of an attempt that was killed
		return fmt.Errorf("remove raft state: %w", err)
	}
	before := d.identity()
	d.setMember(id, nil) // the credential is needed from here on
	m, err := d.startMember(id, false)
	if err == nil {
		if err = finish(m); err == nil {
			err = id.save(d.stateDir)
		}
		if err != nil {
			m.stop()
			m.purge()
		}
	}
	if err != nil {
		d.setMember(before, nil)
		_ = os.RemoveAll(d.raftDir())
		return err
	}
	d.setMember(id, m)
	m.startAgent()
	return nil
}

func (d *daemon) raftDir() string { return filepath.Join(d.stateDir, "raft") }

func (d *daemon) apiAddr(addr netip.Addr) string {
	return netip.AddrPortFrom(addr, d.apiPort).String()
}

// advertised returns the node's address for others, which must be its own.
func (d *daemon) advertised(text string) (netip.Addr, error) {
	if text == "" {
		text = d.advertiseAddr
	}
	if text == "" {
		return netdev.DefaultAddr()
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return addr, api.Errorf(api.CodeInvalid, "advertise address %q: give an IPv4 address of this node", text)
	}
	if _, _, err := netdev.UplinkOf(addr); err != nil {
		return addr, api.Errorf(api.CodeInvalid, "advertise address %s: %v", addr, err)
	}
	return addr, nil
}

// checkPool refuses a pool that is none or that this node's routes overlap.
func checkPool(text string) (netip.Prefix, error) {
	if text == "" {
		text = api.DefaultPool
	}
	pool, err := netip.ParsePrefix(text)
	if err != nil || !pool.Addr().Is4() || pool.Bits() > 24 || pool != pool.Masked() {
		return pool, api.Errorf(api.CodeInvalid, "pool %q: give an IPv4 network of at least 256 addresses, such as %s", text, api.DefaultPool)
	}
	route, overlaps, err := netdev.OverlapsRoutes(pool)
	if err != nil {
		return pool, fmt.Errorf("compare the pool %s with this node's routes: %w", pool, err)
	}
	if overlaps {
		return pool, api.Errorf(api.CodeConflict, "the pool %s overlaps this node's route %s: choose another with `orch init --pool`", pool, route)
	}
	return pool, nil
}

// newSecret makes the secret of a join token; its first letters say for which
// role it is, to people.
func newSecret(role api.Role) string {
	return "orch-" + string(role) + "-" + api.NewID(rand.Reader) + api.NewID(rand.Reader)
}

// parseToken splits SECRET@HOST:PORT; the port may be left out.
func parseToken(token string) (secret, addr string, err error) {
	secret, addr, ok := strings.Cut(token, "@")
	if !ok || addr == "" || !slices.ContainsFunc([]api.Role{api.RoleWorker, api.RoleManager}, func(r api.Role) bool {
		return strings.HasPrefix(secret, "orch-"+string(r)+"-")
	}) {
		return "", "", api.Errorf(api.CodeInvalid, "a join token has the form TOKEN@HOST:PORT and begins with orch-worker- or orch-manager-: paste what `orch join-token` prints on a manager")
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, fmt.Sprint(api.DefaultAPIPort))
	}
	return secret, addr, nil
}

// nodeObject describes this node to the cluster.
func (d *daemon) nodeObject(ctx context.Context, id identity, m *member) *api.Node {
	return &api.Node{
		ID: id.Node, Hostname: d.hostname, Role: id.Role,
		Availability: api.AvailabilityActive, State: api.NodeDown,
		Addr: id.Addr, APIPort: d.apiPort, GossipPort: d.gossipPort,
		Info: d.nodeInfo(ctx, m),
	}
}
