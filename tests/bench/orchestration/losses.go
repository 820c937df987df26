package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/tests/bench/figures"
)

const (
	lossReplicas = 6
	lossPort     = 8080
)

// losses takes the power of one node after another, every other time of the
// leader's, and measures until clients that connect through the others meet no
// failure any more, and until all replicas take traffic elsewhere: they listen, which
// is what tasks without a check of their own are asked for.
func (o *orch) losses(ctx context.Context, out io.Writer, times int) error {
	if times == 0 {
		return nil
	}
	if err := o.deployFile(ctx, compose(workload{lossReplicas, "v1", false})+fmt.Sprintf("    ports: [\"%d:8080\"]\n", lossPort)); err != nil {
		return err
	}
	var failing, healing figures.Spread
	whose := map[bool]figures.Spread{} // healing, by whether the leader was lost
	defer func() {                     // also of a run that was ended early
		if len(whose[true]) == 0 || len(whose[false]) == 0 {
			return
		}
		fmt.Fprintf(out, "%-48s %-6s %v (p99 must be at most 2 s)\n", "node lost: last failed request", o.name(), failing)
		fmt.Fprintf(out, "%-48s %-6s %v (p99 must be at most 6 s)\n", "node lost: all replicas healthy elsewhere", o.name(), healing)
		fmt.Fprintf(out, "%-48s %-6s %v\n", "   of these, while it led", o.name(), whose[true])
		fmt.Fprintf(out, "%-48s %-6s %v\n", "   and while it did not", o.name(), whose[false])
	}()
	for i := range times {
		if err := o.allReady(ctx); err != nil {
			return err
		}
		leads := i%2 == 0
		victim, err := o.victim(ctx, leads)
		if err != nil {
			return err
		}
		failed, healed, err := o.lose(ctx, victim)
		if err != nil {
			return fmt.Errorf("loss of %s: %w", victim, err)
		}
		failing, healing = append(failing, failed), append(healing, healed)
		whose[leads] = append(whose[leads], healed)
		if err := o.Start(ctx, victim); err != nil {
			return err
		}
	}
	if err := o.allReady(ctx); err != nil {
		return err
	}
	return o.remove(ctx)
}

// lose takes a node's power under load.
func (o *orch) lose(ctx context.Context, victim string) (failed, healed time.Duration, err error) {
	var addrs []string
	asked := ""
	for _, n := range o.Nodes() {
		if n.Name != victim {
			addrs = append(addrs, fmt.Sprintf("%v:%d", n.Addr, lossPort))
			asked = n.Name
		}
	}
	load := o.startLoad(addrs)
	began := time.Now()
	err = o.Kill(ctx, victim)
	if err == nil {
		err = o.awaitServing(ctx, asked, lossReplicas, victim)
	}
	healed = time.Since(began)
	last := load.end()
	return max(0, last.Sub(began)), healed, err
}

// victim is the leader, or a node that is not.
func (o *orch) victim(ctx context.Context, leads bool) (string, error) {
	list, err := o.nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range list {
		if n.Leader == leads {
			return n.Hostname, nil
		}
	}
	return "", errors.New("no such node")
}

func (o *orch) nodes(ctx context.Context) ([]api.NodeEntry, error) {
	list, err := rpc.Call[api.Empty, api.NodeList](ctx, o.clients["n1"], api.ProcNodes, &api.Empty{})
	if err != nil {
		return nil, err
	}
	return list.Nodes, nil
}

// allReady waits until every node is ready and has its part of the replicas.
func (o *orch) allReady(ctx context.Context) error {
	return await(ctx, "the cluster has settled", func() error {
		nodes, err := o.nodes(ctx)
		if err != nil {
			return err
		}
		for _, n := range nodes {
			if n.State != api.NodeReady || !n.Voter {
				return fmt.Errorf("%s is %s, with a vote: %v", n.Hostname, n.State, n.Voter)
			}
		}
		tasks, err := o.serving(ctx, "n1")
		if err != nil {
			return err
		}
		on := map[string]int{}
		for _, t := range tasks {
			on[t.NodeName]++
		}
		for _, n := range nodes {
			if on[n.Hostname] != lossReplicas/len(nodes) {
				return fmt.Errorf("tasks: %v", on)
			}
		}
		return nil
	})
}

// load makes requests over new connections at a steady pace.
type load struct {
	stop    chan struct{}
	running sync.WaitGroup
	mu      sync.Mutex
	last    time.Time // when the last one that failed began
}

const (
	loadEach = 20 * time.Millisecond
	// loadTime is less than the time until a lost SYN is sent again (1 s), so that
	// each request tells of one moment.
	loadTime = 900 * time.Millisecond
)

func (o *orch) startLoad(addrs []string) *load {
	l := &load{stop: make(chan struct{})}
	client := o.HTTP(lab.ClientName)
	client.Timeout = loadTime
	l.running.Go(func() {
		ticker := time.NewTicker(loadEach)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-l.stop:
				return
			case <-ticker.C:
				l.running.Go(func() { l.ask(client, "http://"+addrs[i%len(addrs)]+"/whoami") })
			}
		}
	})
	return l
}

func (l *load) ask(client *http.Client, url string) {
	at := time.Now()
	resp, err := client.Get(url)
	if err == nil {
		resp.Body.Close()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.After(l.last) {
		l.last = at
	}
}

// end stops the load and returns when the last request that failed began.
func (l *load) end() time.Time {
	close(l.stop)
	l.running.Wait()
	return l.last
}
