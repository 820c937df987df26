// Package agent is a node's loop: it follows the cluster's state on a stream
// from a manager, makes the node's kernel and container runtime be what that
// state says, and reports what became of it.
//
// Nothing it does depends on having run before: what it finds in the kernel and
// in the runtime when it starts is adopted.
package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/network"
)

// Runtime runs containers. All operations are idempotent; an error that wraps
// api.ErrRuntimeUnavailable says nothing about the task.
type Runtime interface {
	Tasks(ctx context.Context) (map[api.TaskID]api.ContainerState, error)
	Task(ctx context.Context, id api.TaskID) (api.ContainerState, error)
	Watch(ctx context.Context, notify func(api.TaskID)) error
	// Probe runs the healthcheck of a container once.
	Probe(ctx context.Context, containerID string) (healthy bool, err error)
	Output
	Lifecycle
}

// Lifecycle takes a task's containers from nothing to nothing.
type Lifecycle interface {
	EnsureImage(ctx context.Context, spec *api.TaskSpec) error
	ImportImage(ctx context.Context, id, name string, from api.ImageContent, progress func(done, total int64)) error
	// CreateSandbox returns the path of the task's network namespace.
	CreateSandbox(ctx context.Context, t *api.Task, net api.SandboxNet) (string, error)
	// PlaceFiles makes the task's secrets and configs, in the order of its spec.
	PlaceFiles(t *api.Task, contents [][]byte) error
	RemoveFiles(id api.TaskID) error
	StartTask(ctx context.Context, t *api.Task) error
	StopTask(ctx context.Context, id api.TaskID, grace time.Duration) error
	RemoveTask(ctx context.Context, id api.TaskID) error
}

// Links makes the interfaces of tasks.
type Links interface {
	// Attach gives the namespace its eth0 and returns the index of the host's
	// side. Encrypted: what the task sends to other nodes will be. It is
	// idempotent.
	Attach(ctx context.Context, task api.TaskID, netns string, addr netip.Addr, encrypted bool) (ifindex int, err error)
	Detach(ctx context.Context, task api.TaskID) error
	List(ctx context.Context) (map[api.TaskID]int, error)
	// OpenConnections counts the connections to servers in the namespace on
	// which something is going on.
	OpenConnections(netns string) (int, error)
	// Listens reports whether something in the namespace listens on each of the
	// TCP ports.
	Listens(netns string, ports []uint16) (bool, error)
	// GuardMembers has the node send the addresses of others no VXLAN but the data
	// plane's.
	GuardMembers(nodes []netip.Addr) error
}

// Dataplane makes the kernel's state equal to a plan.
type Dataplane interface {
	Apply(ctx context.Context, plan api.NetworkPlan) error
}

// Tunnels makes the devices that encrypt what goes to other nodes, as a plan says.
type Tunnels interface {
	// Apply returns the indexes of the devices, 0 for one that could not be made;
	// the error says why.
	Apply(plan api.NetworkPlan) ([]int, error)
}

// Ports keeps ports from connections of the node's own, which would be taken for
// clients'.
type Ports interface {
	ReservePorts(ports []uint16) error
	// ReleasePorts ends the reservation of all that were reserved, also by another
	// process, but of these.
	ReleasePorts(but []uint16) error
}

// Names answers for services and tasks.
type Names interface {
	Set(zone network.Zone)
}

// Gossip carries liveness, and hints of tasks that were seen to die.
type Gossip interface {
	// Suspects are the nodes believed dead, Died the tasks hinted at.
	Suspects() map[api.NodeID]bool
	Died() map[api.TaskID]bool
	// Changed returns a channel that is closed when either changes.
	Changed() <-chan struct{}
	Broadcast(task api.TaskID)
	// SetKeys makes these the keys of the gossip, of which the first encrypts.
	SetKeys(keys [][]byte)
}

// Managers is the way to the cluster's managers.
type Managers interface {
	// Session calls each with every update until something fails.
	Session(ctx context.Context, each func(*api.Update) error) error
	Report(ctx context.Context, report *api.Report) (*api.ReportResponse, error)
	// TaskFiles returns a task's secrets and configs, in the order of its spec.
	TaskFiles(ctx context.Context, id api.TaskID) ([]api.File, error)
	// MoveOn ends the session, because its manager lags: the next is with another.
	MoveOn()
	// Know tells the managers' present addresses.
	Know(addrs []string)
}

// Config is what an Agent needs.
type Config struct {
	Node      api.NodeID
	Addr      netip.AddrPort // of its API
	Runtime   Runtime
	Links     Links
	Dataplane Dataplane
	Tunnels   Tunnels
	Ports     Ports
	Names     Names
	Gossip    Gossip
	Managers  Managers
	Fence     Fence
	Copies    Copies
	DNS       netip.Addr // what tasks use as name server
	Info      func(ctx context.Context) api.NodeInfo
	Now       func() time.Time
	Log       *slog.Logger
}

// Agent runs one node's part of the cluster.
type Agent struct {
	Config
	view    cell[*api.Snapshot]      // what the managers say; nil until they have
	newest  cell[api.Version]        // what the leader had at the last report; zero before the first
	links   cell[map[api.TaskID]int] // interfaces that are up, by task
	applied cell[applied]
	devices []int // that encrypt, as syncNetwork made them last
	// Of syncNetwork: the members that it told the kernel of last, and the ports.
	guarded  []netip.Addr
	reserved reserved
	tasks    *tasks
	reports  *reports
	look     chan struct{} // holds one token when the node has become another
}

// applied is what is in the kernel.
type applied struct {
	version api.Version
	links   map[api.TaskID]int
}

func New(cfg Config) *Agent {
	a := &Agent{Config: cfg, reports: newReports(), look: make(chan struct{}, 1)}
	a.tasks = newTasks(a)
	return a
}

// retryDelay is waited after a failure before the same is tried again.
const retryDelay = 500 * time.Millisecond

// Run does the node's work until ctx ends. What runs in containers and in the
// kernel goes on without it.
func (a *Agent) Run(ctx context.Context) error {
	links, err := a.Links.List(ctx)
	if err != nil {
		return err
	}
	a.links.Set(links)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.followManagers(ctx) })
	g.Go(func() error { return a.syncNetwork(ctx) })
	g.Go(func() error { return a.watchInfo(ctx) })
	g.Go(func() error { return a.sendReports(ctx) })
	g.Go(func() error { return a.watchFence(ctx) })
	g.Go(func() error { return a.tasks.run(ctx) })
	g.Go(func() error { return a.watchRuntime(ctx) })
	return g.Wait()
}

// View returns the cluster as this node knows it, nil before it has heard of it.
func (a *Agent) View() *api.Snapshot {
	view, _ := a.view.Get()
	return view
}

// followManagers keeps the view up to date. The view never goes back: a manager
// that was restarted, or lags, may begin with a state from long ago, in which
// tasks that run here do not exist yet. What is newer than that the leader says
// in its answer to the first report. Managers that were restored are of another
// group, whose states are all newer than those of the groups before.
func (a *Agent) followManagers(ctx context.Context) error {
	oldest := a.awaitLeader(ctx)
	for ctx.Err() == nil {
		said := &api.Snapshot{}
		err := a.Managers.Session(ctx, func(u *api.Update) error {
			if u.Reset {
				said = &api.Snapshot{}
			}
			next := *said.With(u.Changes)
			next.Index = u.Index
			said = &next
			if now := said.Version(); now.Compare(oldest) >= 0 && now.Compare(a.known()) >= 0 {
				a.view.Set(said)
				a.Managers.Know(managerAddrs(said))
			}
			return nil
		})
		if ctx.Err() == nil {
			a.Log.Info("lost the stream from a manager, looking for another", "err", err)
			pause(ctx, retryDelay)
		}
	}
	return nil
}

// awaitLeader waits for the leader's first answer to a report and returns the
// version of the state that it had.
func (a *Agent) awaitLeader(ctx context.Context) api.Version {
	for {
		newest, changed := a.newest.Get()
		if newest != (api.Version{}) {
			return newest
		}
		select {
		case <-ctx.Done():
			return newest
		case <-changed:
		}
	}
}

func managerAddrs(view *api.Snapshot) []string {
	var addrs []string
	for _, n := range api.Sorted(view.Nodes) {
		if n.Role == api.RoleManager {
			addrs = append(addrs, n.APIAddr())
		}
	}
	return addrs
}

// watchRuntime passes the runtime's events on to the tasks.
func (a *Agent) watchRuntime(ctx context.Context) error {
	for ctx.Err() == nil {
		err := a.Runtime.Watch(ctx, a.tasks.poke)
		if ctx.Err() == nil {
			a.Log.Warn("lost the container runtime's events", "err", err)
			pause(ctx, retryDelay)
		}
	}
	return nil
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
