package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/netdev"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/seal"
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
	key := api.NewGossipKey(rand.Reader)
	id.ClusterID, id.Role, id.Addr, id.Pool, id.GossipKey = api.NewID(rand.Reader), api.RoleManager, addr, pool.String(), key
	id.Managers = []string{d.apiAddr(addr)}

	cluster := &api.Cluster{
		ID: id.ClusterID, Pool: id.Pool, GossipKey: key, GossipKeySince: time.Now(), LeaseTimeout: d.lease, CertificateLife: d.certificateLife,
		WorkerToken: api.NewID(rand.Reader), ManagerToken: api.NewID(rand.Reader), Return: req.Return,
	}
	if err := cluster.ValidateSettings(); err != nil {
		return nil, err
	}
	var unlock string
	if req.Autolock {
		key := seal.NewUnlockKey(rand.Reader)
		cluster.UnlockKey, unlock = key, key.Text()
	}
	if err := d.found(ctx, &id, cluster, req); err != nil {
		return nil, err
	}
	var tokens *api.JoinTokens
	err = d.enroll(id, func(m *member) (err error) {
		g := m.managing.Load()
		if err := g.bootstrap(ctx, cluster, d.nodeObject(ctx, id, m)); err != nil {
			return err
		}
		if tokens, err = g.control.JoinTokens(ctx, &api.Empty{}); err != nil {
			return err
		}
		return id.save(d.stateDir)
	})
	if err != nil {
		return nil, err
	}
	return &api.InitResponse{NodeID: id.Node, Tokens: *tokens, UnlockKey: unlock}, nil
}

// Join makes this node a member of the token's cluster.
func (d *daemon) Join(ctx context.Context, req *api.JoinRequest) (*api.JoinResponse, error) {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	id := d.identity()
	if id.member() {
		return nil, api.Errorf(api.CodeConflict, "this node is in a cluster already (%s)", id.ClusterID)
	}
	token, err := pki.ParseToken(req.Token)
	if err != nil {
		return nil, err
	}
	token.Addr = rpc.WithPort(token.Addr)
	addr, err := d.advertised(req.AdvertiseAddr)
	if err != nil {
		return nil, err
	}
	id.Addr = addr
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	if err := d.admit(ctx, &id, token); err != nil {
		return nil, fmt.Errorf("join through %s: %w", token.Addr, err)
	}
	err = d.enroll(id, func(m *member) error {
		if id.Role != api.RoleManager {
			return id.save(d.stateDir)
		}
		return m.managing.Load().joinGroup(ctx, token.Addr)
	})
	if err != nil {
		return nil, err
	}
	return &api.JoinResponse{NodeID: id.Node, Role: id.Role}, nil
}

// admit asks the manager that a token names to make this node a member, and
// makes id what it answers.
func (d *daemon) admit(ctx context.Context, id *identity, token pki.Token) error {
	request, err := pki.Request(id.Key)
	if err != nil {
		return err
	}
	client := rpc.NewJoinClient(token, time.Now)
	defer client.Close()
	admitted, err := rpc.Call[api.AdmitRequest, api.AdmitResponse](ctx, client, api.ProcAdmit,
		&api.AdmitRequest{Secret: token.Secret, Node: *d.nodeObject(ctx, *id, nil), Request: request})
	if err != nil {
		return err
	}
	if _, err := checkPool(admitted.Pool); err != nil {
		return err
	}
	id.ClusterID, id.Role, id.Pool, id.GossipKey, id.Managers = admitted.ClusterID, admitted.Role, admitted.Pool, admitted.GossipKey, admitted.Managers
	id.OtherGossipKeys, id.ElectionTimeout, id.Epoch = admitted.OtherGossipKeys, admitted.ElectionTimeout, admitted.Epoch
	return id.certify(id.Key, admitted.Certificate)
}

// enroll starts the parts of a member and lets finish make it one and keep its
// identity. If anything fails the node is what it was before, unless others may
// count on it already.
func (d *daemon) enroll(id identity, finish func(*member) error) error {
	if err := d.forgetRaft(); err != nil { // of an attempt that was killed
		return err
	}
	before := d.identity()
	d.setMember(id, nil) // the credentials are needed from here on
	m, err := d.startMember(id, false)
	if err == nil {
		d.setMember(id, m) // so that it answers the leader, who asks how far it is
		err = finish(m)
		if id.Joining = errors.As(err, new(unfinished)); err != nil && !id.Joining {
			m.stop()
			m.purge()
		}
	}
	if err != nil && !id.Joining {
		d.setMember(before, nil)
		return errors.Join(err, before.save(d.stateDir), d.forgetRaft())
	}
	d.setMember(id, m)
	m.startAgent()
	if id.Joining {
		g := m.managing.Load()
		g.run("join", g.finishJoin)
	}
	return err
}

// unfinished is why a node does not know yet whether it is in the Raft group.
type unfinished struct{ error }

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

// move has the node be at another address than it was, if --advertise-addr says so.
// The managers learn it from its first report.
func (d *daemon) move() error {
	id := d.identity()
	if d.advertiseAddr == "" || d.advertiseAddr == id.Addr.String() {
		if _, _, err := netdev.UplinkOf(id.Addr); err != nil {
			return fmt.Errorf("this node is in a cluster as %s: %w: if it has moved, start the daemon with --advertise-addr and its new address", id.Addr, err)
		}
		return nil
	}
	addr, err := d.advertised(d.advertiseAddr)
	if err != nil {
		return err
	}
	d.log.Info("this node has moved", "from", id.Addr, "to", addr)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id.Addr = addr
	return d.id.save(d.stateDir)
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

// nodeObject describes this node to the cluster.
func (d *daemon) nodeObject(ctx context.Context, id identity, m *member) *api.Node {
	return &api.Node{
		ID: id.Node, Hostname: d.hostname, Role: id.Role,
		Availability: api.AvailabilityActive, State: api.NodeDown,
		Addr: id.Addr, APIPort: d.apiPort, GossipPort: d.gossipPort,
		Info: d.nodeInfo(ctx, m),
	}
}
