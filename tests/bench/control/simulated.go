package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/control"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/seal"
	"github.com/orch-dev/orch/tests/bench/figures"
)

// simulated measures one manager in this process, with a real log, that carries
// many nodes and tasks.
func simulated(ctx context.Context, out io.Writer, opt options) error {
	dir, err := os.MkdirTemp("", "orch-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	keys := seal.NewRing(rand.Reader)
	m, err := open(dir, keys)
	if err != nil {
		return err
	}
	if err := m.fill(ctx, opt); err != nil {
		return errors.Join(err, m.raft.Shutdown())
	}
	if err := m.streams(ctx, out, opt); err != nil {
		return errors.Join(err, m.raft.Shutdown())
	}
	return m.snapshot(ctx, out, opt, dir, keys)
}

// one is a manager alone.
type one struct {
	replica *manager.Replica
	raft    *consensus.Node
}

func open(dir string, keys *seal.Ring) (*one, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr()
	l.Close() // there is nobody to answer
	layer := consensus.NewStreamLayer(addr, func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("there is no other manager")
	})
	state := store.New()
	raft, err := consensus.New(consensus.Config{
		ID: "m0", Addr: addr.String(), Dir: dir, Transport: layer, FSM: state, Keys: keys,
		Log: slog.New(slog.DiscardHandler), ElectionTimeout: patience, // it is alone, and elections are not what is measured
	})
	if err != nil {
		return nil, err
	}
	return &one{&manager.Replica{Store: state, Raft: raft}, raft}, nil
}

// fill writes the nodes and tasks.
func (m *one) fill(ctx context.Context, opt options) error {
	if err := m.raft.Bootstrap(); err != nil {
		return err
	}
	if _, _, err := m.raft.WaitLeader(ctx); err != nil {
		return err
	}
	changes := []api.Change{
		{Cluster: &api.Cluster{ID: "bench", Pool: api.DefaultPool}},
		{Network: &api.Network{ID: "net", Name: "net", Number: 1}},
		{Service: &api.Service{ID: "web", Spec: api.ServiceSpec{Name: "web", Task: api.TaskSpec{Image: "web:1"}}}},
	}
	for i := range opt.streams {
		addr := netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)})
		changes = append(changes, api.Change{Node: &api.Node{
			ID: nodeID(i), Hostname: string(nodeID(i)), Role: api.RoleWorker, Availability: api.AvailabilityActive,
			State: api.NodeReady, Addr: addr, APIPort: 2377, GossipPort: 7946,
		}})
	}
	for i := range opt.tasks {
		changes = append(changes, api.Change{Task: &api.Task{
			ID: api.TaskID(fmt.Sprintf("task%d", i)), ServiceID: "web", ServiceName: "web", Slot: i + 1,
			NodeID: nodeID(i % opt.streams), Networks: []api.NetworkID{"net"},
			Spec: api.TaskSpec{Image: "web:1", Env: []string{"PORT=8080"}}, Desired: api.DesiredRun,
			Status:   api.TaskStatus{State: api.TaskRunning, ContainerID: fmt.Sprintf("%064d", i)},
			Endpoint: api.Endpoint{Addr: netip.AddrFrom4([4]byte{10, byte(128 + i>>16), byte(i >> 8), byte(i)}), State: api.EndpointReady},
		}})
	}
	const batch = 2000
	for len(changes) > 0 {
		n := min(batch, len(changes))
		if _, err := m.replica.Commit(ctx, changes[:n]); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

func nodeID(i int) api.NodeID { return api.NodeID(fmt.Sprintf("node%d", i)) }

// streams has every node follow the state, and measures what that takes, and how
// long a change takes to reach all of them.
func (m *one) streams(ctx context.Context, out io.Writer, opt options) error {
	server := control.New(control.Config{
		Node: "m0", Replica: m.replica, Tracker: manager.NewTracker(), Rand: rand.Reader, Now: time.Now,
		NewID: func() string { return api.NewID(rand.Reader) }, Log: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(ctx)
	var agents errgroup.Group
	defer func() { stop(); _ = agents.Wait() }()
	var ready, reached, sent atomic.Int64
	all := int64(opt.streams)
	began, peak := time.Now(), peakMemory(ctx)
	var failed sync.Once
	broken := make(chan error, 1)
	for i := range opt.streams {
		first := true
		agents.Go(func() error {
			err := server.Session(rpc.WithCaller(ctx, rpc.Caller{Local: true}), &api.SessionRequest{Node: nodeID(i)}, func(update *rpc.Encoded) error {
				for _, part := range *update {
					sent.Add(int64(len(part)))
				}
				if first {
					first = false
					ready.Add(1)
				} else {
					reached.Add(1)
				}
				return nil
			})
			if ctx.Err() == nil {
				failed.Do(func() { broken <- err })
			}
			return nil
		})
	}
	if err := reach(ctx, &ready, all, broken); err != nil {
		return err
	}
	views := time.Since(began)
	runtime.GC()
	fmt.Fprintf(out, "%d streams, %d tasks: all have their first view of %.0f MB after %.1f s; heap %d MB, the process's own memory at its peak %d MB, with the log's file %d MB\n",
		opt.streams, opt.tasks, float64(sent.Load())/float64(all<<20), views.Seconds(), heap()>>20, peak()>>10, status(os.Getpid(), "VmHWM")>>10)
	var took figures.Spread
	for i := range 20 {
		reached.Store(0)
		task := *m.replica.Task("task0")
		task.Status.Message = fmt.Sprint(i)
		began := time.Now()
		if _, err := m.replica.Commit(ctx, []api.Change{{Task: &task}}); err != nil {
			return err
		}
		if err := reach(ctx, &reached, all, broken); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	fmt.Fprintf(out, "a change reaches all %d streams: %s\n", opt.streams, took)
	return nil
}

// reach waits until a counter says what it should.
func reach(ctx context.Context, counter *atomic.Int64, want int64, broken <-chan error) error {
	for counter.Load() < want {
		select {
		case err := <-broken:
			return fmt.Errorf("a stream ended: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// snapshot measures how long the state takes to be written, and a manager to
// start from it.
func (m *one) snapshot(ctx context.Context, out io.Writer, opt options, dir string, keys *seal.Ring) error {
	last := m.replica.Index()
	began := time.Now()
	if err := m.raft.Compact(); err != nil {
		return err
	}
	wrote := time.Since(began)
	if err := m.raft.Shutdown(); err != nil {
		return err
	}
	began = time.Now()
	again, err := open(dir, keys)
	if err != nil {
		return err
	}
	defer func() { _ = again.raft.Shutdown() }()
	if err := again.replica.Wait(ctx, last); err != nil {
		return err
	}
	if got := len(again.replica.Snapshot().Tasks); got != opt.tasks {
		return fmt.Errorf("after the restart there are %d tasks of %d", got, opt.tasks)
	}
	fmt.Fprintf(out, "snapshot of %d tasks: written in %.2f s, restart from it in %.2f s\n", opt.tasks, wrote.Seconds(), time.Since(began).Seconds())
	return nil
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// peakMemory watches the memory of this process that is no file, in KiB, until ctx
// ends.
func peakMemory(ctx context.Context) (peak func() int64) {
	var most atomic.Int64
	go func() {
		for ctx.Err() == nil {
			most.Store(max(most.Load(), int64(status(os.Getpid(), "RssAnon"))))
			pause(ctx, 20*time.Millisecond)
		}
	}()
	return most.Load
}
