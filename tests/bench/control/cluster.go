package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/tests/bench/figures"
)

// cluster is a lab of three managers and a worker.
type cluster struct {
	*lab.Lab
	clients map[string]*rpc.Client
}

const patience = 30 * time.Second

// newCluster brings up a lab that down removes.
func newCluster(ctx context.Context) (_ *cluster, down func(), err error) {
	dir, err := os.MkdirTemp("", "orch-bench-")
	if err != nil {
		return nil, nil, err
	}
	binary, name := filepath.Join(dir, "orch"), fmt.Sprintf("bench-control-%d", os.Getpid())
	down = func() {
		_ = lab.Down(context.Background(), name)
		_ = os.RemoveAll(dir)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "github.com/orch-dev/orch/cmd/orch")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		down()
		return nil, nil, fmt.Errorf("build orch: %w: %s", err, text)
	}
	l, err := lab.Up(ctx, lab.Options{Name: name, Binary: binary, Nodes: 4, Managers: 3})
	if err != nil {
		down()
		return nil, nil, err
	}
	c := &cluster{Lab: l, clients: make(map[string]*rpc.Client)}
	for _, n := range l.Nodes() {
		c.clients[n.Name] = rpc.NewLocalClient(n.Socket)
	}
	return c, down, nil
}

// leader waits for the manager that leads.
func (c *cluster) leader(ctx context.Context) (*lab.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		for _, n := range c.Nodes() {
			if n.Manager && c.raft(ctx, n).State == "leader" {
				return n, nil
			}
		}
		pause(ctx, 10*time.Millisecond)
	}
	return nil, errors.New("no manager leads")
}

// raft is what a manager says of its part in the group; nothing if it does not.
func (c *cluster) raft(ctx context.Context, n *lab.Node) api.RaftInfo {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	info, err := rpc.Call[api.Empty, api.Info](ctx, c.clients[n.Name], api.ProcInfo, &api.Empty{})
	if err != nil || info.Raft == nil {
		return api.RaftInfo{}
	}
	raft := *info.Raft
	raft.State = strings.ToLower(raft.State)
	return raft
}

// settled waits until all managers follow one that leads.
func (c *cluster) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		states := make(map[string]int)
		terms := make(map[uint64]bool)
		for _, n := range c.Nodes() {
			if n.Manager {
				r := c.raft(ctx, n)
				states[r.State]++
				terms[r.Term] = true
			}
		}
		if states["leader"] == 1 && states["follower"] == 2 && len(terms) == 1 {
			pause(ctx, 300*time.Millisecond) // so that the next fault hits a calm cluster
			return nil
		}
		pause(ctx, 20*time.Millisecond)
	}
	return errors.New("the managers do not settle")
}

// write puts a label on a node.
func (c *cluster) write(ctx context.Context, through *lab.Node, value string) error {
	_, err := rpc.Call[api.UpdateNodeRequest, api.Empty](ctx, c.clients[through.Name], api.ProcUpdateNode,
		&api.UpdateNodeRequest{Node: "n4", AddLabels: map[string]string{"bench": value}})
	return err
}

// accepted writes until it is told that it was done: what a leader had received when
// it died may or may not be. It returns how often it was told so.
func (c *cluster) accepted(ctx context.Context, through *lab.Node, value string) (again int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := c.write(ctx, through, value)
		if err == nil || api.CodeOf(err) != api.CodeUnavailable || ctx.Err() != nil {
			return again, err
		}
		again++
	}
}

// other is a manager that is not n.
func (c *cluster) other(n *lab.Node) *lab.Node {
	if n.Name == "n1" {
		return c.Node(2)
	}
	return c.Node(1)
}

// killed kills the leader again and again, and measures until another manager
// has the next write accepted.
func (c *cluster) killed(ctx context.Context, out io.Writer, opt options) error {
	var took figures.Spread
	unknown := 0
	for i := range opt.kills {
		if err := c.settled(ctx); err != nil {
			return err
		}
		leader, err := c.leader(ctx)
		if err != nil {
			return err
		}
		if err := c.KillDaemon(ctx, leader.Name); err != nil {
			return err
		}
		began := time.Now()
		again, err := c.accepted(ctx, c.other(leader), fmt.Sprint("killed-", i))
		if err != nil {
			return fmt.Errorf("the write after a leader was killed: %w", err)
		}
		unknown += again
		took = append(took, time.Since(began))
		if err := c.Start(ctx, leader.Name); err != nil {
			return err
		}
	}
	if len(took) > 0 {
		fmt.Fprintf(out, "leader killed -> next write accepted, 3 managers: %s; sent again because the dead leader had it: %d\n", took, unknown)
	}
	return nil
}

// stopped stops the leader politely under a stream of writes.
func (c *cluster) stopped(ctx context.Context, out io.Writer, opt options) error {
	var all, slowest figures.Spread
	failed := 0
	for i := range opt.stops {
		if err := c.settled(ctx); err != nil {
			return err
		}
		leader, err := c.leader(ctx)
		if err != nil {
			return err
		}
		through := c.other(leader)
		over := make(chan struct{})
		var wg sync.WaitGroup
		var slow time.Duration
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					return
				default:
				}
				began := time.Now()
				limit, cancel := context.WithTimeout(ctx, patience)
				if err := c.write(limit, through, fmt.Sprintf("stopped-%d-%d", i, n)); err != nil {
					failed++
					fmt.Fprintf(out, "a write failed while %s was stopped: %v\n", leader.Name, err)
				}
				cancel()
				took := time.Since(began)
				all, slow = append(all, took), max(slow, took)
			}
		})
		pause(ctx, 500*time.Millisecond)
		if err := syscall.Kill(c.Status(leader).PID, syscall.SIGTERM); err != nil {
			return err
		}
		for c.Status(leader).PID != 0 && ctx.Err() == nil {
			pause(ctx, 10*time.Millisecond)
		}
		pause(ctx, 500*time.Millisecond)
		close(over)
		wg.Wait()
		slowest = append(slowest, slow)
		if err := c.Start(ctx, leader.Name); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		fmt.Fprintf(out, "leader stopped politely, writes meanwhile: %d failed, %s; the slowest of each stop: %s\n", failed, all, slowest)
	}
	return nil
}

// writes measures the acknowledged writes of many clients through all managers,
// each to a service of its own, which has no tasks.
func (c *cluster) writes(ctx context.Context, out io.Writer, opt options) error {
	if err := c.settled(ctx); err != nil {
		return err
	}
	stack := &api.DeployRequest{Stack: "bench", Resolve: api.ResolveNever}
	for id := range opt.clients {
		stack.Services = append(stack.Services, api.ServiceSpec{
			Name: serviceName(id), Mode: api.ModeReplicated, Task: api.TaskSpec{Image: "none"},
		})
	}
	if _, err := rpc.Call[api.DeployRequest, api.DeployResponse](ctx, c.clients["n1"], api.ProcDeploy, stack); err != nil {
		return err
	}
	var done, failed atomic.Int64
	var why sync.Once
	limit, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for id := range opt.clients {
		through := c.clients[c.Node(1+id%3).Name]
		wg.Go(func() {
			for n := 0; limit.Err() == nil; n++ {
				if err := oneWrite(limit, through, id, n); err == nil {
					done.Add(1)
				} else if limit.Err() == nil {
					failed.Add(1)
					why.Do(func() { fmt.Fprintf(out, "a write failed: %v\n", err) })
				}
			}
		})
	}
	pause(ctx, warmUp)
	began, before, first := time.Now(), c.cpuTimes(), done.Load()
	var each []float64 // writes per second, in every second
	for ctx.Err() == nil && time.Since(began) < opt.seconds {
		at, had := time.Now(), done.Load()
		pause(ctx, time.Second)
		each = append(each, float64(done.Load()-had)/time.Since(at).Seconds())
	}
	seconds, used, written := time.Since(began).Seconds(), c.cpuTimes(), done.Load()-first
	slices.Sort(each)
	var spent []string
	for i, n := range c.Nodes() {
		spent = append(spent, fmt.Sprintf("%s %.0f", n.Name, float64((used[i]-before[i]).Microseconds())/float64(max(1, written))))
	}
	fmt.Fprintf(out, "acknowledged writes, 3 managers, fsync on, %d clients: %.0f/s (in its seconds %.0f to %.0f, %.0f in the middle; %d failed); CPU per write, in us: %s\n",
		opt.clients, float64(written)/seconds, each[0], each[len(each)-1], each[len(each)/2], failed.Load(), strings.Join(spent, ", "))
	return ctx.Err()
}

// warmUp is how long clients write before it counts: connections are made, and
// memory is taken.
const warmUp = 3 * time.Second

func serviceName(id int) string { return fmt.Sprintf("bench_s%d", id) }

// oneWrite gives a service a label.
func oneWrite(ctx context.Context, through *rpc.Client, id, n int) error {
	_, err := rpc.Call[api.UpdateRequest, api.UpdateResponse](ctx, through, api.ProcUpdate,
		&api.UpdateRequest{Service: serviceName(id), AddLabels: map[string]string{"n": strconv.Itoa(n)}})
	return err
}

// idle measures the daemons when nothing is asked of them.
func (c *cluster) idle(ctx context.Context, out io.Writer, opt options) error {
	if err := c.settled(ctx); err != nil {
		return err
	}
	pause(ctx, 10*time.Second) // until the daemons have noticed, see pkg/quiet
	before := c.cpuTimes()
	pause(ctx, opt.seconds)
	used := c.cpuTimes()
	for i, n := range c.Nodes() {
		role := "worker"
		if n.Manager {
			role = "manager"
		}
		pid := c.Status(n).PID
		fmt.Fprintf(out, "idle %s %s: %d MB resident, of which %d MB its own (the rest is the program's file), %.2f %% of a core\n",
			role, n.Name, status(pid, "VmRSS")>>10, status(pid, "RssAnon")>>10, 100*(used[i]-before[i]).Seconds()/opt.seconds.Seconds())
	}
	return nil
}

// cpuTimes is what each node's daemon has used.
func (c *cluster) cpuTimes() []time.Duration {
	var out []time.Duration
	for _, n := range c.Nodes() {
		out = append(out, cpuTime(c.Status(n).PID))
	}
	return out
}

// status is a figure of /proc/PID/status, in KiB.
func status(pid int, field string) int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range bytes.Lines(text) {
		if rest, ok := strings.CutPrefix(string(line), field+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// cpuTime is what a process has used, in user and kernel.
func cpuTime(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(text), ") ")
	if !ok {
		return 0
	}
	const userAt, tick = 11, 10 * time.Millisecond // fields 14 and 15, in USER_HZ
	fields := strings.Fields(rest)
	user, _ := strconv.Atoi(fields[userAt])
	system, _ := strconv.Atoi(fields[userAt+1])
	return time.Duration(user+system) * tick
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
