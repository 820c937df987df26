package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
	"github.com/orch-dev/orch/pkg/docker"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/pkg/wireguard"
)

// Leave has this node leave its cluster, and tells how far it is.
func (d *daemon) Leave(ctx context.Context, req *api.LeaveRequest, tell func(*api.LeaveProgress) error) error {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	m := d.currentMember()
	if id := d.identity(); !id.member() || m == nil && !req.Force {
		return d.notMember()
	}
	if m != nil {
		var err error
		if req.Force {
			err = m.departAtOnce(ctx, tell)
		} else {
			err = m.depart(ctx, tell)
		}
		if err != nil {
			return err
		}
		if err := m.gossip.members.Leave(time.Second); err != nil {
			d.log.Warn("the other nodes are not told that this one leaves", "err", err)
		}
		m.stop()
	}
	if err := d.forget(req.Purge); err != nil {
		return fmt.Errorf("this node has left the cluster, but not all that it had of it could be removed (repeat with `orch leave --force`): %w", err)
	}
	d.log.Info("this node has left its cluster")
	return tell(&api.LeaveProgress{Line: "This node has left the cluster.", Left: true})
}

// leavePoll is how often a node that leaves looks how far it is.
const leavePoll = 100 * time.Millisecond

// depart has the node's tasks move elsewhere, makes a manager a worker, and has the
// managers forget the node.
func (m *member) depart(ctx context.Context, tell func(*api.LeaveProgress) error) error {
	self := m.id.Node
	if err := m.ask(ctx, api.ProcDepart, &api.DepartRequest{Node: self, Prepare: true}); err != nil {
		return fmt.Errorf("ask to leave: %w", err)
	}
	err := m.await(ctx, tell, func() string {
		view := m.agent.View()
		if view == nil || view.Nodes[self] == nil || view.Nodes[self].Availability != api.AvailabilityDrain {
			return "this node gets no more tasks"
		}
		var left []string
		for _, t := range api.Sorted(view.Tasks) {
			if t.NodeID == self && !t.Status.Removed {
				left = append(left, t.Name())
			}
		}
		if len(left) == 0 {
			return ""
		}
		return fmt.Sprintf("%d tasks to move elsewhere: %s", len(left), strings.Join(left, ", "))
	})
	if err == nil && m.managing.Load() != nil {
		err = m.ask(ctx, api.ProcUpdateNode, &api.UpdateNodeRequest{Node: string(self), Role: api.RoleWorker})
	}
	if err == nil {
		err = m.await(ctx, tell, func() string {
			if m.managing.Load() != nil {
				return "the other managers go on without this one"
			}
			return ""
		})
	}
	if err == nil {
		err = m.ask(ctx, api.ProcDepart, &api.DepartRequest{Node: self})
	}
	if err != nil {
		return fmt.Errorf("this node stays in the cluster, drained (`orch node activate` on a manager gives it tasks again; `orch leave --force` waits for nothing): %w", err)
	}
	return nil
}

// departAtOnce has the managers forget the node, if they can be asked and do.
func (m *member) departAtOnce(ctx context.Context, tell func(*api.LeaveProgress) error) error {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	if err := m.ask(ctx, api.ProcDepart, &api.DepartRequest{Node: m.id.Node}); err != nil {
		return tell(&api.LeaveProgress{Warning: fmt.Sprintf("the cluster does not know that this node has left (remove it there with `orch node rm %s`): %v", m.id.Node, err)})
	}
	return nil
}

// await waits until nothing is left of what waits tells.
func (m *member) await(ctx context.Context, tell func(*api.LeaveProgress) error, waits func() string) error {
	said := ""
	for {
		line := waits()
		if line == "" {
			return nil
		}
		if line != said {
			said = line
			if err := tell(&api.LeaveProgress{Line: line}); err != nil {
				return err
			}
		}
		if err := pauseFor(ctx, leavePoll); err != nil {
			return err
		}
	}
}

// ask asks the managers, this node's own first if it is one.
func (m *member) ask(ctx context.Context, procedure string, req any) error {
	_, err := rpc.Call[any, api.Empty](ctx, m.d.peers.Manager(m.managers.Addr()), procedure, &req)
	return err
}

// forget removes what this node has of a cluster that it is in no longer, and makes it
// a new node. If anything fails it can be repeated.
func (d *daemon) forget(purge bool) error {
	id := d.identity()
	d.setMember(id, nil)
	ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
	defer cancel()
	if err := errors.Join(d.removeTasks(ctx, id, purge), d.removeNetwork(ctx, id, purge)); err != nil {
		return err
	}
	if err := errors.Join(d.forgetRaft(), os.RemoveAll(d.imageDir()), os.Remove(identityFile(d.stateDir))); err != nil {
		return fmt.Errorf("remove the node's state: %w", err)
	}
	fresh, err := loadIdentity(d.stateDir)
	if err != nil {
		return err
	}
	d.setMember(*fresh, nil)
	d.peers.Reset() // what is open shows the certificate of before
	d.setLocked(false)
	return nil
}

// removeTasks ends what still runs. Where there is nothing left to end, the guard of
// singletons goes by itself. With purge the image that orch has made goes, too.
func (d *daemon) removeTasks(ctx context.Context, id identity, purge bool) error {
	engine, err := docker.New(d.engineConfig(id))
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	err = errors.Join(engine.Purge(ctx), os.RemoveAll(fenceDir(d.runDir)))
	if err == nil && purge {
		err = engine.RemoveSandboxImage(ctx)
	}
	return err
}

// removeNetwork removes interfaces, routes and rules, and empties the data plane, or
// removes it too and puts back the kernel's settings.
func (d *daemon) removeNetwork(ctx context.Context, id identity, purge bool) error {
	links, uplink, err := d.newLinks(id)
	if err != nil {
		return err
	}
	if err := errors.Join(links.Purge(ctx), wireguard.New(uplink, ownerTag(id.ClusterID)).Purge()); err != nil {
		return err
	}
	if purge {
		return errors.Join(dataplane.Purge(d.pinDir), d.sysctls.Restore())
	}
	plane, err := d.openPlane(uplink)
	if err != nil {
		return err
	}
	nothing := api.NetworkPlan{Node: id.Node, Underlay: id.Addr, Pool: netip.MustParsePrefix(id.Pool)} // newLinks has parsed it
	if err := errors.Join(plane.Apply(ctx, nothing), plane.Close()); err != nil {
		return err
	}
	return d.sysctls.ReleasePorts(nil)
}

func (d *daemon) imageDir() string { return filepath.Join(d.stateDir, "images") }

func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
