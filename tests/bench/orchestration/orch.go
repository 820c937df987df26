package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
	"github.com/orch-dev/orch/pkg/rpc"
)

// orch is a lab of three managers that share the machine's engine.
type orch struct {
	*lab.Lab
	docker  *client.Client
	clients map[string]*rpc.Client
	dir     string
}

func newOrch(ctx context.Context, dir string, program []byte) (*orch, error) {
	docker, err := client.New(client.FromEnv)
	if err != nil {
		return nil, err
	}
	binary, name := filepath.Join(dir, "orch"), fmt.Sprintf("bench-orchestration-%d", os.Getpid())
	o := &orch{docker: docker, clients: map[string]*rpc.Client{}, dir: dir}
	err = build(ctx, "github.com/orch-dev/orch/cmd/orch", binary)
	if err == nil {
		err = importImages(ctx, docker, program)
	}
	if err == nil {
		o.Lab, err = lab.Up(ctx, lab.Options{Name: name, Binary: binary, Nodes: 3, Managers: 3})
	}
	if err != nil {
		_ = lab.Down(context.Background(), name)
		removeImages(docker)
		return nil, err
	}
	for _, n := range o.Nodes() {
		o.clients[n.Name] = rpc.NewLocalClient(n.Socket)
	}
	return o, nil
}

func (o *orch) close() {
	_ = o.Down(context.Background())
	removeImages(o.docker)
	o.docker.Close()
}

func (o *orch) name() string { return "orch" }

func (o *orch) deploy(ctx context.Context, w workload) error {
	return o.deployFile(ctx, compose(w))
}

func (o *orch) deployFile(ctx context.Context, text string) error {
	file := filepath.Join(o.dir, "compose.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := o.Orch(ctx, "n1", "deploy", "-c", file, stackName)
	return err
}

func (o *orch) scale(ctx context.Context, replicas int) error {
	_, err := o.Orch(ctx, "n1", "service", "scale", fmt.Sprintf("%s_web=%d", stackName, replicas))
	return err
}

func (o *orch) remove(ctx context.Context) error {
	_, err := o.Orch(ctx, "n1", "stack", "rm", stackName)
	return err
}

// serving are the tasks that take traffic, as a node says.
func (o *orch) serving(ctx context.Context, asked string) ([]api.TaskEntry, error) {
	list, err := rpc.Call[api.TasksRequest, api.TaskList](ctx, o.clients[asked], api.ProcTasks, &api.TasksRequest{Stack: stackName})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Tasks, func(t api.TaskEntry) bool {
		return t.Desired != api.DesiredRun || t.Status.State != api.TaskRunning || t.Endpoint.State != api.EndpointReady
	}), nil
}

// awaitServing waits until so many tasks take traffic, none of them on the node
// but.
func (o *orch) awaitServing(ctx context.Context, asked string, replicas int, but string) error {
	return await(ctx, fmt.Sprintf("%d tasks serve", replicas), func() error {
		tasks, err := o.serving(ctx, asked)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(tasks, func(t api.TaskEntry) bool { return t.NodeName == but }) || len(tasks) != replicas {
			return fmt.Errorf("%d do", len(tasks))
		}
		return nil
	})
}
