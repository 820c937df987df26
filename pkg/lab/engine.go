package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
)

// engine is the part of the machine's Docker Engine that belongs to labs.
type engine struct{ docker *client.Client }

// openEngine finds the engine by DOCKER_HOST, or at its usual socket.
func openEngine() (*engine, error) {
	docker, err := client.New(client.FromEnv)
	if err != nil {
		return nil, fmt.Errorf("open Docker Engine: %w", err)
	}
	return &engine{docker: docker}, nil
}

// pingEngine reports whether there is an engine that answers.
func pingEngine(ctx context.Context) error {
	e, err := openEngine()
	if err != nil {
		return err
	}
	defer e.close()
	if _, err := e.docker.Ping(ctx, client.PingOptions{}); err != nil {
		return fmt.Errorf("no Docker Engine answers on this machine: start it, or run `make engine`: %w", err)
	}
	return nil
}

func (e *engine) close() { e.docker.Close() }

func labelled(lab string, node string) client.Filters {
	filters := make(client.Filters).Add("label", labelLab+"="+lab)
	if node != "" {
		filters.Add("label", labelNode+"="+node)
	}
	return filters
}

// atOnce limits how many containers are worked on at the same time.
const atOnce = 4

// kill kills the containers of one node, which stay as a power cut leaves them.
func (e *engine) kill(ctx context.Context, lab, node string) error {
	list, err := e.docker.ContainerList(ctx, client.ContainerListOptions{Filters: labelled(lab, node)})
	if err != nil {
		return fmt.Errorf("list containers of %s: %w", node, err)
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, c := range list.Items {
		group.Go(func() error {
			_, err := e.docker.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: "KILL"})
			if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) { // ended by itself
				return fmt.Errorf("kill container %.12s of %s: %w", c.ID, node, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// remove removes all containers and volumes of a lab.
func (e *engine) remove(ctx context.Context, lab string) error {
	if err := e.removeContainers(ctx, lab); err != nil {
		return err
	}
	list, err := e.docker.VolumeList(ctx, client.VolumeListOptions{Filters: labelled(lab, "")})
	if err != nil {
		return fmt.Errorf("list volumes of lab %s: %w", lab, err)
	}
	var errs []error
	for _, v := range list.Items {
		if _, err := e.docker.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{Force: true}); err != nil {
			errs = append(errs, fmt.Errorf("remove volume %s: %w", v.Name, err))
		}
	}
	return errors.Join(errs...)
}

// removeContainers goes on until there are none: the engine may still be making
// one that a daemon asked for before it was killed.
func (e *engine) removeContainers(ctx context.Context, lab string) error {
	for {
		list, err := e.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: labelled(lab, "")})
		if err != nil {
			return fmt.Errorf("list containers of lab %s: %w", lab, err)
		}
		if len(list.Items) == 0 {
			return nil
		}
		var group errgroup.Group
		group.SetLimit(atOnce)
		for _, c := range list.Items {
			group.Go(func() error {
				_, err := e.docker.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
				if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) { // being removed already
					return fmt.Errorf("remove container %.12s: %w", c.ID, err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove containers of lab %s: %w", lab, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// labs returns the names of the labs that have a container or a volume.
func (e *engine) labs(ctx context.Context) ([]string, error) {
	any := make(client.Filters).Add("label", labelLab)
	var names []string
	containers, err := e.docker.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: any})
	if err != nil {
		return nil, fmt.Errorf("list containers of labs: %w", err)
	}
	for _, c := range containers.Items {
		names = append(names, c.Labels[labelLab])
	}
	volumes, err := e.docker.VolumeList(ctx, client.VolumeListOptions{Filters: any})
	if err != nil {
		return nil, fmt.Errorf("list volumes of labs: %w", err)
	}
	for _, v := range volumes.Items {
		names = append(names, v.Labels[labelLab])
	}
	return names, nil
}
