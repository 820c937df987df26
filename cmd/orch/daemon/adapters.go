package daemon

import (
	"context"
	"io"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/agent"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dns"
	"github.com/orch-dev/orch/pkg/netdev"
	"github.com/orch-dev/orch/pkg/network"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/wireguard"
)

// taskLinks is netdev as the agent wants it.
type taskLinks struct{ *netdev.Links }

func (l taskLinks) Attach(ctx context.Context, task api.TaskID, netns string, addr netip.Addr, encrypted bool) (int, error) {
	return l.Links.Attach(ctx, netdev.Link{Task: task, NetNS: netns, Addr: addr, Encrypted: encrypted})
}

// lacksEncryption is tried once: a kernel does not change under its node.
var lacksEncryption = sync.OnceValue(wireguard.Lacks)

// tunnels is wireguard as the agent wants it. A kernel without it is no failure:
// the managers know of it, and give the node nothing to encrypt.
type tunnels struct{ *wireguard.Tunnels }

func (t tunnels) Apply(plan api.NetworkPlan) ([]int, error) {
	if len(plan.Tunnels.Epochs) > 0 && lacksEncryption() != "" {
		return make([]int, len(plan.Tunnels.Epochs)), nil
	}
	return t.Tunnels.Apply(plan)
}

// encryption is what the node says of it.
func (m *member) encryption() *api.Encryption {
	keys, err := m.tunnels.Keys()
	if err != nil {
		m.d.log.Error("cannot read the keys of encryption between nodes", "err", err)
	}
	return &api.Encryption{Lacks: lacksEncryption(), Keys: keys}
}

// zoneSetter is dns as the agent wants it.
type zoneSetter struct{ *dns.Server }

func (z zoneSetter) Set(zone network.Zone) {
	next := dns.Zone(zone)
	z.Server.Set(&next)
}

// nodeRuntime answers for the container runtime of a node that may not be in a
// cluster yet.
type nodeRuntime struct{ d *daemon }

var _ agent.Output = nodeRuntime{}

// imageStore is what answers about images. Managers are looked up as everywhere;
// others, who may only read what a manager lets them, must be members.
func (d *daemon) imageStore(ctx context.Context) (agent.ImageStore, error) {
	caller := rpc.CallerOf(ctx)
	if caller.Role == api.RoleUser {
		if err := d.allows(caller, api.ProcImageUpload); err != nil {
			return nil, err
		}
		return d.currentMember().engine, nil
	}
	if caller.Local || caller.Role == api.RoleManager {
		m, err := nodeRuntime{d}.member(ctx)
		if err != nil {
			return nil, err
		}
		return m.engine, nil
	}
	m := d.currentMember()
	if m == nil {
		return nil, d.notMember()
	}
	if caller.By != "" {
		if err := m.isManager(caller.By); err != nil {
			return nil, err
		}
	}
	if view := m.agent.View(); view == nil || view.Nodes[caller.Node] == nil {
		return nil, api.Errorf(api.CodeDenied, "node %s is not a member of this cluster (any more)", caller.Node)
	}
	return m.engine, nil
}

// allows tells why a user may not call a procedure of the daemon's, if so.
func (d *daemon) allows(caller rpc.Caller, procedure string) error {
	if caller.Role != api.RoleUser {
		return nil
	}
	if g := d.manages(); g != nil {
		if caller.By != "" {
			if err := g.control.MayPassOn(caller.By); err != nil {
				return err
			}
		}
		return g.control.AuthorizeUser(caller.Node, procedure)
	}
	return api.Errorf(api.CodeDenied, "node %s is not a manager: users ask managers", d.hostname)
}

// member returns what answers, if the caller still is a manager as far as this
// node knows: its certificate says only that it was.
func (r nodeRuntime) member(ctx context.Context) (*member, error) {
	m := r.d.currentMember()
	if m == nil {
		return nil, r.d.notMember()
	}
	caller := rpc.CallerOf(ctx)
	if caller.Local {
		return m, nil
	}
	if caller.By != "" {
		if err := m.isManager(caller.By); err != nil {
			return nil, err
		}
	}
	return m, m.isManager(caller.Node)
}

// isManager tells why a node is no manager as far as this one knows, if so.
func (m *member) isManager(id api.NodeID) error {
	view := m.agent.View()
	if view == nil {
		return nil
	}
	if n := view.Nodes[id]; n == nil || n.Role != api.RoleManager {
		return api.Errorf(api.CodeDenied, "node %s is not a manager of this cluster (any more)", id)
	}
	return nil
}

func (r nodeRuntime) Logs(ctx context.Context, id api.TaskID, opts api.LogOptions, stdout, stderr io.Writer) error {
	m, err := r.member(ctx)
	if err != nil {
		return err
	}
	return m.engine.Logs(ctx, id, opts, stdout, stderr)
}

// has reports whether a path is on the node, as its engine would find it.
func (r nodeRuntime) has(ctx context.Context, path string) (bool, error) {
	if _, err := r.member(ctx); err != nil {
		return false, err
	}
	_, err := os.Stat(path)
	return err == nil, nil
}

// explainer is what answers for the node's data plane while there is one.
func (d *daemon) explainer() (agent.Explainer, *api.Snapshot, error) {
	m := d.currentMember()
	if m == nil {
		return nil, nil, d.notMember()
	}
	return m.plane, m.agent.View(), nil
}

// engineTimeout bounds what the engine may take to say what it is.
const engineTimeout = 5 * time.Second

// nodeInfo says what this machine is. Without an engine that answers, the
// engine's part stays empty.
func (d *daemon) nodeInfo(ctx context.Context, m *member) api.NodeInfo {
	ctx, cancel := context.WithTimeout(ctx, engineTimeout)
	defer cancel()
	var info api.NodeInfo
	if m != nil {
		if engine, err := m.engine.Info(ctx); err == nil {
			info = engine
		}
		info.Datapath = m.plane.Describe()
		info.Encryption = m.encryption()
		info.Issuer = d.credentials().Issuer
		id := d.identity()
		info.GossipRing = api.GossipRingID(id.gossipRing())
		if g := m.managing.Load(); g != nil {
			info.ElectionTimeout = g.replica.Raft.ElectionTimeout()
		}
	}
	info.OrchVersion = d.version
	if info.EngineVersion == "" {
		info.OS, info.Arch, info.CPUs = runtime.GOOS, runtime.GOARCH, runtime.NumCPU()
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		info.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return info
}

// Raft says for the leader how far this manager is.
func (d *daemon) Raft(ctx context.Context, _ *api.Empty) (*api.RaftInfo, error) {
	m, err := nodeRuntime{d}.member(ctx)
	if err != nil {
		return nil, err
	}
	stats, ok := m.raftStats()
	if !ok {
		return nil, api.Errorf(api.CodeUnavailable, "node %s is not a manager", d.hostname)
	}
	return raftInfo(stats), nil
}

func raftInfo(stats consensus.Stats) *api.RaftInfo {
	info := &api.RaftInfo{State: stats.State, Term: stats.Term, Applied: stats.AppliedIndex}
	for _, p := range stats.Peers {
		if p.Voter {
			info.Voters++
		}
	}
	return info
}

// Info says what this node is and what it knows of its cluster.
func (d *daemon) Info(ctx context.Context, _ *api.Empty) (*api.Info, error) {
	id, m := d.identity(), d.currentMember()
	if err := d.allows(rpc.CallerOf(ctx), api.ProcInfo); err != nil {
		return nil, err
	}
	info := &api.Info{ClusterID: id.ClusterID, Pool: id.Pool, Locked: d.isLocked()}
	if id.LeftBehind != "" {
		info.LeftBehind = d.leftBehind()
	}
	info.Node = *d.nodeObject(ctx, id, m)
	if m == nil {
		return info, nil
	}
	var err error
	if info.Attachments, err = m.plane.Attachments(); err != nil {
		return nil, err
	}
	info.CertificateEnds = id.credentials.Expires()
	view := m.agent.View()
	if g := m.managing.Load(); g != nil {
		view = g.replica.Snapshot()
		info.Election, info.Disk = g.replica.Raft.ElectionTimeout(), d.diskSpeed()
		info.Raft = raftInfo(g.replica.Raft.Stats())
		if leader, _, ok := g.replica.Raft.Leader(); ok && view.Nodes[leader] != nil {
			info.Leader = view.Nodes[leader].Hostname
		}
	}
	if view == nil {
		return info, nil
	}
	describeCluster(info, view)
	if self := view.Nodes[id.Node]; self != nil {
		known := *self
		known.Info = info.Node.Info
		info.Node = known
	}
	return info, nil
}

func describeCluster(info *api.Info, view *api.Snapshot) {
	stacks := make(map[string]bool)
	for _, svc := range view.Services {
		stacks[svc.Stack] = true
	}
	for _, n := range view.Nodes {
		if n.Role == api.RoleManager {
			info.Managers++
		}
	}
	for _, t := range view.Tasks {
		if !t.Status.State.Terminal() {
			info.Tasks++
		}
	}
	info.Nodes, info.Stacks, info.Services = len(view.Nodes), len(stacks), len(view.Services)
	if view.Cluster != nil {
		info.Lease = view.Cluster.LeaseTimeout
	}
}
