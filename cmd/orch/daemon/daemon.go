// Package daemon is a node's part of the cluster: the process that wires the
// planners, adapters and loops together, and comes to a cluster and leaves it.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/agent"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/quiet"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/seal"
	"github.com/orch-dev/orch/pkg/sysctl"
)

// Where the daemon is, if it is not told otherwise.
const (
	DefaultRunDir   = "/run/orch"
	DefaultStateDir = "/var/lib/orch"
	SocketName      = "orch.sock" // in the run directory
	socketGroup     = "orch"      // whose members may use the socket, as root may
)

// options are the daemon's flags.
type options struct {
	version                  string // of the program
	stateDir, runDir, pinDir string
	advertiseAddr            string
	hostname                 string
	datapath                 string
	dockerHost               string
	metricsAddr              string
	resolvConf               string
	lab                      string
	apiPort, gossipPort      uint16
	lease, certificateLife   time.Duration
	udpIdle                  time.Duration
	maxFlows                 uint32
	debug                    bool
}

// NewCommand returns the command that runs the daemon of this version of the
// program.
func NewCommand(version string) *cobra.Command {
	o := &options{version: version}
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run this node's part of the cluster, until SIGTERM",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runDaemon(cmd.Context(), o) },
	}
	hostname, _ := os.Hostname()
	f := cmd.Flags()
	f.StringVar(&o.stateDir, "state-dir", DefaultStateDir, "what must survive a reboot: identity, Raft log")
	f.StringVar(&o.runDir, "run-dir", DefaultRunDir, "runtime files: the API's socket, files mounted into tasks")
	f.StringVar(&o.pinDir, "pin-dir", dataplane.DefaultPinDir, "where kernel programs and maps are pinned, in a BPF file system")
	f.StringVar(&o.advertiseAddr, "advertise-addr", "", "this node's address for other nodes (default: the one of the default route)")
	f.StringVar(&o.hostname, "hostname", hostname, "this node's name")
	f.StringVar(&o.datapath, "datapath", string(dataplane.ModeAuto), "how the uplink is attached to: auto, xdp or tc")
	f.Uint32Var(&o.maxFlows, "max-flows", dataplane.DefaultMaxFlows, "lasting flows to remember, and as many translated for tasks; those there are stay when the number changes")
	f.DurationVar(&o.udpIdle, "udp-idle", dataplane.DefaultUDPIdle, "after how long without a datagram a UDP flow has ended")
	f.StringVar(&o.dockerHost, "docker-host", "", "the Docker Engine's socket, unix://PATH (default: DOCKER_HOST, or the usual one)")
	f.StringVar(&o.metricsAddr, "metrics-addr", fmt.Sprintf(":%d", api.MetricsPort), "where /metrics is served; empty: nowhere")
	f.StringVar(&o.resolvConf, "resolv-conf", "/etc/resolv.conf", "name servers for names outside the cluster")
	f.Uint16Var(&o.apiPort, "api-port", api.DefaultAPIPort, "TCP port of the API and of Raft")
	f.Uint16Var(&o.gossipPort, "gossip-port", api.GossipPort, "TCP and UDP port of gossip")
	f.DurationVar(&o.lease, "lease", api.DefaultLease, "for a new cluster: how long a node may be silent before its tasks are replaced")
	f.DurationVar(&o.certificateLife, "certificate-life", pki.DefaultLife, "for a new cluster: how long nodes' certificates are good, which are renewed after two thirds of it")
	f.StringVar(&o.lab, "lab", "", "the lab that this node belongs to (set by `orch lab`)")
	f.BoolVar(&o.debug, "debug", false, "log in detail")
	return cmd
}

// check refuses options that cannot work.
func (o *options) check() error {
	switch dataplane.Mode(o.datapath) {
	case dataplane.ModeAuto, dataplane.ModeXDP, dataplane.ModeTC:
	default:
		return fmt.Errorf("--datapath %q: use auto, xdp or tc", o.datapath)
	}
	if o.maxFlows < 1<<10 || o.maxFlows > 1<<24 {
		return fmt.Errorf("--max-flows %d: use %d to %d", o.maxFlows, 1<<10, 1<<24)
	}
	if o.udpIdle < 10*time.Second || o.udpIdle > 24*time.Hour {
		return fmt.Errorf("--udp-idle %v: use 10s to 24h", o.udpIdle)
	}
	if err := (&api.Cluster{LeaseTimeout: o.lease, CertificateLife: o.certificateLife}).ValidateSettings(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("the daemon must run as root: it loads kernel programs and makes network interfaces")
	}
	for _, dir := range []*string{&o.stateDir, &o.runDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = abs
		if err := os.MkdirAll(abs, 0o711); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	return nil
}

// daemon is one node's process. It answers on the local socket from its start
// on; the rest runs once the node is in a cluster.
type daemon struct {
	options
	log   *slog.Logger
	mux   *rpc.Mux
	peers *rpc.Pool
	sec   *rpc.Security
	// sysctls notes what was changed until a reboot does away with it anyway.
	sysctls *sysctl.Journal

	enrolling sync.Mutex // held while the node comes to its cluster, or goes

	mu     sync.Mutex
	id     identity
	member *member       // nil: in no cluster, or locked
	disk   time.Duration // what a synchronous write took at the last look
	// unlockKey is what this manager's keys are under; locked: it waits for it.
	unlockKey seal.UnlockKey
	locked    bool

	group *errgroup.Group // what runs until the daemon ends
	ctx   context.Context // of group
}

func runDaemon(ctx context.Context, o *options) error {
	if err := o.check(); err != nil {
		return err
	}
	unlock, err := lockDir(o.stateDir)
	if err != nil {
		return err
	}
	defer unlock()
	id, err := loadIdentity(o.stateDir)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	d := &daemon{options: *o, id: *id, mux: rpc.NewMux()}
	d.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := quiet.Timers(); err != nil { // it costs CPU, and nothing else
		d.log.Warn("timers are more exact than they need to be", "err", err)
	}
	d.sec = &rpc.Security{Credentials: d.credentials, Now: time.Now, Epoch: d.epoch}
	d.peers = rpc.NewPool(d.sec)
	d.sysctls = sysctl.New(filepath.Join(d.runDir, "sysctls.json"))
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	d.group, d.ctx = errgroup.WithContext(running)
	defer context.AfterFunc(ctx, func() { d.handOver(); stop() })()
	d.group.Go(func() error {
		if err := quiet.Processors(d.ctx); err != nil {
			d.log.Warn("this daemon keeps all processors while it is idle", "err", err)
		}
		return nil
	})
	return d.run()
}

// handOverTime is what a manager takes at most, once it is told to stop, to let
// another lead and to answer what it has been asked.
const handOverTime = 5 * time.Second

func (d *daemon) handOver() {
	g := d.manages()
	if g == nil {
		return
	}
	ctx, cancel := context.WithTimeout(d.ctx, handOverTime)
	defer cancel()
	if err := g.control.HandOver(ctx); err != nil {
		d.log.Warn("this manager is stopped before another leads", "err", err)
	}
}

func (d *daemon) run() error {
	rpc.Handle(d.mux, api.ProcInit, d.Init)
	rpc.Handle(d.mux, api.ProcJoin, d.Join)
	rpc.HandleStream(d.mux, api.ProcLeave, d.Leave)
	rpc.Handle(d.mux, api.ProcInfo, d.Info)
	rpc.Handle(d.mux, api.ProcRaft, d.Raft)
	rpc.Handle(d.mux, api.ProcUnlock, d.Unlock)
	rpc.HandleUpload(d.mux, api.ProcRestore, d.Restore)
	rpc.Handle(d.mux, api.ProcSurvey, d.Survey)
	rpc.Handle(d.mux, api.ProcRecover, d.Recover)
	rpc.Handle(d.mux, api.ProcGroup, d.Group)
	d.mux.HandlePrefix("/orch.cluster/", http.HandlerFunc(d.serveCluster))
	agent.ServeOutput(d.mux, nodeRuntime{d})
	agent.ServePaths(d.mux, nodeRuntime{d}.has)
	agent.ServeImages(d.mux, d.imageStore, time.Now)
	agent.ServeNet(d.mux, d.explainer)
	rpc.Handle(d.mux, api.ProcDiagnose, d.Diagnose)
	rpc.Handle(d.mux, api.ProcDisk, d.Disk)
	rpc.Handle(d.mux, api.ProcClock, func(context.Context, *api.Empty) (*api.Clock, error) {
		return &api.Clock{Now: time.Now()}, nil
	})

	server := rpc.NewServer(d.mux, d.sec, d.log)
	d.group.Go(func() error {
		return server.ServeLocal(d.ctx, filepath.Join(d.runDir, SocketName), socketGroup)
	})
	id := d.identity()
	d.log.Info("orch daemon", "version", d.version, "node", id.Node, "member", id.member(), "socket", filepath.Join(d.runDir, SocketName))
	if id.member() {
		if err := d.move(); err != nil {
			return err
		}
		d.enrolling.Lock()
		err := d.rejoin(nil)
		d.enrolling.Unlock()
		if d.setLocked(errors.Is(err, seal.ErrLocked)); d.isLocked() {
			d.log.Warn("this manager is locked: give it the cluster's unlock key with `orch unlock`")
		} else if err != nil {
			return fmt.Errorf("rejoin the cluster: %w", err)
		}
	}
	err := d.group.Wait()
	if m := d.currentMember(); m != nil {
		m.stop()
	}
	return err
}

// lockDir makes sure that no other daemon uses a state directory.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another orch daemon runs with the state directory %s", dir)
	}
	return func() { _ = f.Close() }, nil
}

func (d *daemon) identity() identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id
}

func (d *daemon) currentMember() *member {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.member
}

// manages returns what the node runs as a manager, nil if it is none.
func (d *daemon) manages() *managing {
	if m := d.currentMember(); m != nil {
		return m.managing.Load()
	}
	return nil
}

func (d *daemon) setMember(id identity, m *member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id, d.member = id, m
}

// credentials are what the node shows to others, nil before it has any.
func (d *daemon) credentials() *pki.Credentials { return d.identity().credentials }

// saveJoining keeps whether this manager may not be in the Raft group yet.
func (d *daemon) saveJoining(joining bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id.Joining = joining
	return d.id.save(d.stateDir)
}

// saveManagers keeps where the managers are for the next start.
func (d *daemon) saveManagers(addrs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id.Managers = addrs; !d.id.member() {
		return
	}
	if err := d.id.save(d.stateDir); err != nil {
		d.log.Error("cannot keep the managers' addresses", "err", err)
	}
}

// serveCluster answers the cluster's API on a manager. A worker passes nothing
// on: who takes over a worker's machine gets no say in the cluster.
func (d *daemon) serveCluster(w http.ResponseWriter, r *http.Request) {
	switch m, g := d.currentMember(), d.manages(); {
	case m == nil:
		rpc.WriteError(w, r, d.notMember())
	case g != nil:
		g.control.ServeHTTP(w, r)
	default:
		rpc.WriteError(w, r, api.Errorf(api.CodeDenied, "node %s is a worker: run this on a manager (%s)", d.hostname, m.managerNames()))
	}
}

// notMember says why the node cannot answer for a cluster.
func (d *daemon) notMember() error {
	if d.isLocked() {
		return api.Errorf(api.CodeUnavailable, "this manager is locked: give it the cluster's unlock key with `orch unlock`")
	}
	if id := d.identity(); id.LeftBehind != "" {
		return api.Errorf(api.CodeDenied, "%s", d.leftBehind())
	} else if id.member() {
		return api.Errorf(api.CodeUnavailable, "this node is about to take its place in the cluster: try again in a moment")
	}
	return api.Errorf(api.CodeUnavailable, "this node is not in a cluster: make one with `orch init`, or join one with `orch join TOKEN@HOST:PORT`")
}
