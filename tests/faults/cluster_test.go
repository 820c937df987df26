package faults

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
	"github.com/orch-dev/orch/pkg/rpc"
)

// patience ends a wait for what never comes.
const patience = time.Minute

// cluster is a lab of managers alone.
type cluster struct {
	*lab.Lab
	clients map[string]*rpc.Client // by node
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	name := fmt.Sprintf("%s%s-%d", labPrefix, strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), os.Getpid())
	t.Cleanup(func() {
		if err := takeDisks(name); err != nil {
			t.Error(err)
		}
		if err := lab.Down(context.Background(), name); err != nil {
			t.Errorf("remove lab: %v", err)
		}
	})
	l, err := lab.Up(t.Context(), lab.Options{Name: name, Binary: orchProgram, Nodes: 3, Managers: 3})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Lab: l, clients: make(map[string]*rpc.Client)}
	for _, n := range l.Nodes() {
		c.clients[n.Name] = rpc.NewLocalClient(n.Socket)
		t.Cleanup(c.clients[n.Name].Close)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the end of %s's log:\n%s", n.Name, tail(n.Log(), 40))
			}
		})
	}
	return c
}

func tail(file string, lines int) string {
	data, _ := os.ReadFile(file)
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// info is what a node says of itself within a second.
func (c *cluster) info(node string) (*api.Info, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return rpc.Call[api.Empty, api.Info](ctx, c.clients[node], api.ProcInfo, &api.Empty{})
}

// leader waits until one node leads and returns it.
func (c *cluster) leader(t *testing.T) string {
	t.Helper()
	var leader string
	await(t, "a manager leads", func() bool {
		var term uint64
		leader = ""
		for _, n := range c.Nodes() {
			info, err := c.info(n.Name)
			if err == nil && info.Raft != nil && strings.EqualFold(info.Raft.State, "leader") && info.Raft.Term > term {
				leader, term = n.Name, info.Raft.Term
			}
		}
		return leader != ""
	})
	return leader
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s it is still not so that %s", patience, what)
		}
	}
}

// begin starts a node's daemon, and tries again while its start fails for what
// was done to it.
func (c *cluster) begin(t *testing.T, node string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Start(ctx, node); err != nil {
		t.Fatalf("start %s: %v", node, err)
	}
}

// register is a place that clients write to and read: a label of node n1.
func (c *cluster) write(ctx context.Context, through, key, value string) error {
	_, err := rpc.Call[api.UpdateNodeRequest, api.Empty](ctx, c.clients[through], api.ProcUpdateNode,
		&api.UpdateNodeRequest{Node: "n1", AddLabels: map[string]string{key: value}})
	return err
}

// read asks for the newest value there is.
func (c *cluster) read(ctx context.Context, through, key string) (string, error) {
	labels, err := c.labels(rpc.WithRead(ctx, api.ReadConsistent), through)
	return labels[key], err
}

// stale is what one node has of the registers.
func (c *cluster) stale(node string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	return c.labels(rpc.WithRead(ctx, api.ReadStale), node)
}

func (c *cluster) labels(ctx context.Context, through string) (map[string]string, error) {
	list, err := rpc.Call[api.Empty, api.NodeList](ctx, c.clients[through], api.ProcNodes, &api.Empty{})
	if err != nil {
		return nil, err
	}
	for _, n := range list.Nodes {
		if n.Hostname == "n1" {
			return n.Labels, nil
		}
	}
	return nil, fmt.Errorf("%s does not know n1", through)
}
