package dataplane

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
)

// Apply makes the kernel's state equal to the plan. It adds before it deletes,
// and applying the same plan twice changes nothing. On an error the rest of the
// plan may have been applied; applying again completes it. The plan is kept, to
// compare the next one with: it must not be changed any more.
func (d *Dataplane) Apply(ctx context.Context, plan api.NetworkPlan) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.apply(ctx, plan); err != nil {
		return fmt.Errorf("apply network plan %d: %w", plan.Generation, err)
	}
	return nil
}

func (d *Dataplane) apply(ctx context.Context, plan api.NetworkPlan) error {
	mtu, err := mtu(d.uplink)
	if err != nil {
		return fmt.Errorf("look up uplink: %w", err)
	}
	if changed, only := d.onlyBackends(plan, mtu); only {
		return d.amend(plan, changed)
	}
	if err := check(plan, d.cfg); err != nil {
		return err
	}
	if d.have == nil {
		if d.have, err = d.read(); err != nil {
			return fmt.Errorf("read state: %w", err)
		}
	}
	have := d.have
	want := wanted(plan, have, mtu)
	if room := int(d.maps["net_pairs"].MaxEntries()); len(want.pairs) > room {
		return fmt.Errorf("%d pairs of sets of networks, and the data plane has room for %d: fewer different combinations of networks on this node would do", len(want.pairs), room)
	}
	d.have, d.last = nil, nil // read again, should a step fail
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.add(have, want); err != nil {
		return err
	}
	attachErr := d.attachDevices(want)
	if !d.switched {
		if err := d.switchAttachments(); err != nil {
			return err
		}
	}
	if err := d.remove(have, want); err != nil {
		return err
	}
	d.have = want
	d.frontends = make(map[bpf.OrchFrontend6Key]frontendName)
	for _, f := range plan.Frontends {
		d.frontends[frontendKey(f.FrontendKey)] = frontendName{key: f.FrontendKey, service: f.Service}
	}
	if attachErr == nil {
		d.last = &plan
	}
	d.tellOrphaned(have, want)
	return attachErr
}

// tellOrphaned tells Run if what has left may have left flows behind.
func (d *Dataplane) tellOrphaned(have, want *state) {
	if !leaves(have, want) {
		return
	}
	select {
	case d.orphaned <- struct{}{}:
	default: // it is told already
	}
}

// leaves reports whether going from have to want can strand flows or sessions.
func leaves(have, want *state) bool {
	_, backends := diff(have.backends, want.backends)
	_, endpoints := diff(have.endpoints, want.endpoints)
	return len(backends) > 0 || len(endpoints) > 0
}

// add puts in what is new or different, each thing before what refers to it.
func (d *Dataplane) add(have, want *state) error {
	if node := nodeToAdd(have, want); have.node != node && want.node.Underlay != 0 {
		if err := d.maps["node_config"].Put(uint32(0), node); err != nil {
			return fmt.Errorf("update node_config: %w", err)
		}
	}
	if err := errors.Join(
		put(d.maps["members"], have.members, want.members),
		put(d.maps["net_pairs"], have.pairs, want.pairs),
		put(d.maps["endpoints"], have.endpoints, want.endpoints),
		put(d.maps["backends"], have.backends, want.backends),
	); err != nil {
		return err
	}
	if err := d.replaceTables(have.tables, want.tables); err != nil {
		return err
	}
	have4, have6 := byFamily(have.frontends)
	want4, want6 := byFamily(want.frontends)
	return errors.Join(put(d.maps["frontends"], have4, want4), put(d.maps["frontends6"], have6, want6))
}

// remove takes out what is not wanted, in the opposite order.
func (d *Dataplane) remove(have, want *state) error {
	have4, have6 := byFamily(have.frontends)
	want4, want6 := byFamily(want.frontends)
	if err := errors.Join(del(d.maps["frontends"], have4, want4), del(d.maps["frontends6"], have6, want6)); err != nil {
		return err
	}
	_, tables := diffKeys(have.tables, want.tables)
	if err := d.deleteTables(tables); err != nil {
		return err
	}
	for _, id := range tables {
		if err := errors.Join(clearStats[bpf.OrchStats](d.maps["frontend_stats"], id), clearStats[bpf.OrchHandshakes](d.maps["handshakes"], id)); err != nil {
			return err
		}
	}
	_, backends := diff(have.backends, want.backends)
	for _, id := range backends {
		if err := d.maps["backends"].Put(id, bpf.OrchBackend{}); err != nil {
			return fmt.Errorf("delete backend %d: %w", id, err)
		}
		if err := d.depart(id, have.endpoints[have.backends[id].Addr].Node); err != nil {
			return err
		}
		if err := clearStats[bpf.OrchStats](d.maps["backend_stats"], id); err != nil {
			return err
		}
	}
	_, members := diff(have.members, want.members)
	if err := errors.Join(
		deleteKeys(d.maps["hops"], members),
		del(d.maps["endpoints"], have.endpoints, want.endpoints),
		del(d.maps["net_pairs"], have.pairs, want.pairs),
		del(d.maps["members"], have.members, want.members),
		d.detachDevices(want),
	); err != nil {
		return err
	}
	if want.node.Underlay == 0 && have.node.Underlay != 0 || nodeToAdd(have, want) != want.node {
		if err := d.maps["node_config"].Put(uint32(0), want.node); err != nil {
			return fmt.Errorf("clear node_config: %w", err)
		}
	}
	return nil
}

// nodeToAdd is what the node is to be before anything is removed: it goes on
// encrypting as long as there are endpoints that ask for it.
func nodeToAdd(have, want *state) bpf.OrchNodeConfig {
	node := want.node
	if node.Tunnel == 0 {
		node.Tunnel = have.node.Tunnel
	}
	return node
}

// attachDevices attaches the programs to the veth of every task here and to what
// encrypts. An interface that has vanished meanwhile does not keep the others from
// theirs.
func (d *Dataplane) attachDevices(want *state) error {
	var err error
	for purpose, wanted := range want.devices() {
		devices, program := d.devicesOf(purpose)
		for ifindex := range wanted {
			if devices[ifindex] {
				continue
			}
			if attachErr := attach(d.linksDir(), purpose, ifindex, program); attachErr != nil {
				err = errors.Join(err, attachErr)
				continue
			}
			devices[ifindex] = true
		}
	}
	return err
}

// detachDevices detaches from interfaces that the plan has no more.
func (d *Dataplane) detachDevices(want *state) error {
	wanted := want.devices()
	attached, err := names(d.linksDir())
	for _, name := range attached {
		purpose, ifindex, _ := splitAttachment(name)
		if devices, _ := d.devicesOf(purpose); devices != nil && !wanted[purpose][ifindex] {
			err = errors.Join(err, detach(filepath.Join(d.linksDir(), name)))
			delete(devices, ifindex)
		}
	}
	return err
}
