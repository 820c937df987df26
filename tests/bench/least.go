package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/orch-dev/orch/pkg/netdev"
	"github.com/orch-dev/orch/tests/bench/least"
)

// underLeast puts the least overlay between the workloads, with the interfaces as orch
// has them.
func underLeast(ctx context.Context, f *fabric) error {
	var macs [nodeCount + 1][6]byte // by the nodes' numbers
	for i := 1; i <= nodeCount; i++ {
		d, err := f.device(nodeHost(i), uplink)
		if err != nil {
			return err
		}
		copy(macs[i][:], d.HardwareAddr)
	}
	for i := 1; i <= nodeCount; i++ {
		if err := f.engineRules(ctx, i); err != nil {
			return err
		}
		if err := inNetns(f.netns(workloadHost(i)), func() error { return netdev.SetGRO(uplink, true) }); err != nil {
			return err
		}
		if err := f.attachLeast(i, macs); err != nil {
			return fmt.Errorf("least overlay of n%d: %w", i, err)
		}
	}
	return nil
}

// attachLeast loads node i's programs and attaches them until the fabric is closed.
func (f *fabric) attachLeast(i int, macs [nodeCount + 1][6]byte) error {
	up, err := f.device(nodeHost(i), uplink)
	if err != nil {
		return err
	}
	task, err := f.device(nodeHost(i), taskDevice)
	if err != nil {
		return err
	}
	workloadMAC, err := f.device(workloadHost(i), uplink)
	if err != nil {
		return err
	}
	spec, err := least.LoadLeast()
	if err != nil {
		return err
	}
	for name, value := range map[string]any{
		"node": uint8(i), "uplink": uint32(up.Index), "task": uint32(task.Index),
		"nodes": prefix24(nodeAddr(i)), "workloads": prefix24(workloadAddr(i)),
		"node_macs": macs, "workload_mac": [6]byte(workloadMAC.HardwareAddr), "gateway_mac": [6]byte(task.HardwareAddr),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
	}
	var programs least.LeastPrograms
	if err := spec.LoadAndAssign(&programs, nil); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	f.closers = append(f.closers, programs.Close)
	return inNetns(f.netns(nodeHost(i)), func() error {
		return errors.Join(
			f.attachTCX(programs.LeastFromTask, task),
			f.attachTCX(programs.LeastFromUplink, up))
	})
}

// attachTCX attaches to what a device of this namespace receives.
func (f *fabric) attachTCX(program *ebpf.Program, device *net.Interface) error {
	attached, err := link.AttachTCX(link.TCXOptions{Program: program, Attach: ebpf.AttachTCXIngress, Interface: device.Index})
	if err != nil {
		return fmt.Errorf("attach to %s: %w", device.Name, err)
	}
	f.closers = append(f.closers, attached.Close)
	return nil
}

// device is one of a host's.
func (f *fabric) device(host, name string) (device *net.Interface, err error) {
	err = inNetns(f.netns(host), func() error {
		if device, err = net.InterfaceByName(name); err != nil {
			return fmt.Errorf("look up %s of %s: %w", name, host, err)
		}
		return nil
	})
	return device, err
}

// prefix24 are an address's first three bytes, as they are in a packet.
func prefix24(addr netip.Addr) uint32 {
	raw := addr.As4()
	raw[3] = 0
	return binary.NativeEndian.Uint32(raw[:])
}
