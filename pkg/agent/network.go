package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/network"
)

// syncNetwork keeps the kernel and the names as the view says, less what gossip
// holds for dead, and acknowledges each version once it is in the kernel.
func (a *Agent) syncNetwork(ctx context.Context) error {
	for ctx.Err() == nil {
		gossip := a.Gossip.Changed()
		view, viewChanged := a.view.Get()
		links, linksChanged := a.links.Get()
		var look <-chan time.Time
		if view != nil && view.Cluster != nil {
			look = time.After(lookInterval(view))
			if err := a.applyNetwork(ctx, view, links); err != nil {
				a.Log.Error("cannot put the network into the kernel", "index", view.Index, "err", err)
				pause(ctx, retryDelay)
				continue
			}
			a.applied.Set(applied{view.Version(), links})
			a.reports.acknowledge(view.Version())
		}
		select {
		case <-ctx.Done():
		case <-gossip:
		case <-viewChanged:
		case <-linksChanged:
		case <-look:
		}
	}
	return nil
}

// tunnelInterval is how often the node looks whether the devices that encrypt are
// still as they should be: until then nothing that has to be encrypted leaves.
const tunnelInterval = 10 * time.Second

// portsInterval is how often the node looks whether its published ports are still
// reserved: who writes the kernel's list anew, as `sysctl --system` does, may not know
// of them.
const portsInterval = time.Minute

func lookInterval(view *api.Snapshot) time.Duration {
	if view.Encrypts() {
		return tunnelInterval
	}
	return portsInterval
}

// reserved are the published ports that were reserved when the node last looked.
type reserved struct {
	ports []uint16
	at    time.Time
}

// due reports whether others are published now, or it is time to look again: with the
// next change of the view, or once syncNetwork has waited for it.
func (r reserved) due(ports []uint16, now time.Time) bool {
	return r.at.IsZero() || now.Sub(r.at) > portsInterval/2 || !slices.Equal(ports, r.ports)
}

// withPorts applies a plan while its published ports are kept from connections of the
// node's own: they are from before it is applied on, and those of no plan any more
// until it is. That they cannot be holds up nothing.
func (a *Agent) withPorts(ports []uint16, apply func() error) error {
	now := a.Now()
	if !a.reserved.due(ports, now) {
		return apply()
	}
	if err := a.Ports.ReservePorts(ports); err != nil {
		a.Log.Error("cannot reserve published ports: connections of the node's own from them would be taken for clients'", "err", err)
	}
	if err := apply(); err != nil {
		return err
	}
	if err := a.Ports.ReleasePorts(ports); err != nil {
		a.Log.Error("ports that are not published any more stay reserved", "err", err)
	}
	a.reserved = reserved{ports, now}
	return nil
}

// makeTunnels makes the devices of a plan and puts them into it. The managers are
// told of the keys of new ones. What cannot be made holds up nothing else.
func (a *Agent) makeTunnels(plan *api.NetworkPlan) {
	devices, err := a.Tunnels.Apply(*plan)
	if err != nil {
		a.Log.Error("cannot encrypt what goes to other nodes: it is dropped", "err", err)
	}
	plan.Tunnels.Devices = devices
	if !slices.Equal(devices, a.devices) {
		a.devices = devices
		a.Changed()
	}
}

// guardMembers tells the kernel who the members are. That it cannot holds up nothing.
func (a *Agent) guardMembers(members []api.Member) {
	addrs := make([]netip.Addr, len(members))
	for i, m := range members {
		addrs[i] = m.Addr
	}
	if slices.Equal(addrs, a.guarded) {
		return
	}
	if err := a.Links.GuardMembers(addrs); err != nil {
		a.Log.Error("cannot keep others on this node from sending VXLAN to its members", "err", err)
		return
	}
	a.guarded = addrs
}

func (a *Agent) applyNetwork(ctx context.Context, view *api.Snapshot, links map[api.TaskID]int) error {
	view = view.With(withoutDead(view, a.Gossip.Died()))
	plan := network.Plan(view, a.Node, a.Gossip.Suspects(), links)
	a.makeTunnels(&plan)
	a.guardMembers(plan.Members)
	err := a.withPorts(plan.Published(), func() error { return a.Dataplane.Apply(ctx, plan) })
	if err != nil {
		return err
	}
	a.Names.Set(network.Names(view, a.Node))
	return nil
}

// withoutDead takes endpoints that their own node saw die out of the view. The
// store will say the same soon; only it can ever put one back.
func withoutDead(view *api.Snapshot, died map[api.TaskID]bool) []api.Change {
	var changes []api.Change
	for id := range died {
		if t := view.Tasks[id]; t != nil && t.Endpoint.State != api.EndpointGone {
			dead := *t
			dead.Endpoint.State = api.EndpointGone
			changes = append(changes, api.Change{Task: &dead})
		}
	}
	return changes
}

// attach makes a task's interface and waits until the kernel's programs know it.
func (a *Agent) attach(ctx context.Context, t *api.Task, netns string) error {
	view := a.View()
	ifindex, err := a.Links.Attach(ctx, t.ID, netns, t.Endpoint.Addr, view.OnEncrypted(t.Networks))
	if err != nil {
		return fmt.Errorf("connect to the network: %w", err)
	}
	a.setLink(t.ID, ifindex)
	wanted := api.Version{Epoch: view.Version().Epoch, Index: t.Meta.Created}
	for {
		now, changed := a.applied.Get()
		if now.links[t.ID] == ifindex && now.version.Compare(wanted) >= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// settleLimit bounds the wait for a kernel that does not take the network.
const settleLimit = 2 * time.Second

// settle waits until this node's kernel has what the managers say now: while it
// was without its daemon, the node may have gone on sending clients to a task
// that is about to end.
func (a *Agent) settle(ctx context.Context) {
	view := a.View()
	if view == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	for {
		now, changed := a.applied.Get()
		if now.version.Compare(view.Version()) >= 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (a *Agent) detach(ctx context.Context, id api.TaskID) error {
	if err := a.Links.Detach(ctx, id); err != nil {
		return fmt.Errorf("disconnect from the network: %w", err)
	}
	a.setLink(id, 0)
	return nil
}

// setLink notes the index of a task's interface, 0 for none.
func (a *Agent) setLink(id api.TaskID, ifindex int) {
	if links, _ := a.links.Get(); links[id] == ifindex {
		return
	}
	a.links.Update(func(links map[api.TaskID]int) map[api.TaskID]int {
		next := maps.Clone(links)
		if next == nil {
			next = make(map[api.TaskID]int)
		}
		if next[id] = ifindex; ifindex == 0 {
			delete(next, id)
		}
		return next
	})
}

// sandboxNet is what a task's files say of its network.
func (a *Agent) sandboxNet(t *api.Task) api.SandboxNet {
	return api.SandboxNet{DNS: a.DNS, Addr: t.Endpoint.Addr}
}
