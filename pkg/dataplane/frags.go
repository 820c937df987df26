package dataplane

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// xdpFrags reports whether the kernel takes XDP programs that can handle frames
// of several buffers (Linux 5.18). Drivers attach no other program to a device
// whose MTU does not fit one.
func xdpFrags() bool {
	_ = rlimit.RemoveMemlock() // else the kernel says so soon enough
	const pass = 2             // XDP_PASS of linux/bpf.h
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "orch_probe", Type: ebpf.XDP, License: "Dual BSD/GPL", Flags: unix.BPF_F_XDP_HAS_FRAGS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	if err != nil {
		return false
	}
	p.Close()
	return true
}

// explainXDP says in a user's words why native XDP could not be attached to a
// device.
func explainXDP(dev netlink.Link, err error) error {
	const onePage = 3000 // bytes of MTU that fit a buffer with any driver
	name, mtu := dev.Attrs().Name, dev.Attrs().MTU
	switch {
	case mtu <= onePage:
		return err
	case !xdpFrags():
		return fmt.Errorf("%s has an MTU of %d, and this kernel's XDP takes only frames of one buffer (%d; Linux 5.18 takes more): %w", name, mtu, onePage, err)
	}
	return fmt.Errorf("%s has an MTU of %d, for which its driver may have no XDP (try %d): %w", name, mtu, onePage, err)
}
