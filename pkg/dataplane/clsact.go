package dataplane

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kernels before 6.6 have no TCX. There the programs are filters of the clsact
// queueing discipline, switched by a replacement with the same handle and
// priority.
const (
	clsactPriority = 0x6f
	clsactHandle   = 1
)

func clsactFilter(ifindex int) *netlink.BpfFilter {
	return &netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: ifindex,
		Parent:    netlink.HANDLE_MIN_INGRESS,
		Handle:    clsactHandle,
		Priority:  clsactPriority,
		Protocol:  unix.ETH_P_ALL,
	}}
}

func clsactQdisc(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

// attachClsact adds or replaces the filter, and marks it by a directory.
func attachClsact(path string, ifindex int, prog *ebpf.Program) error {
	if err := netlink.QdiscAdd(clsactQdisc(ifindex)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact to interface %d: %w", ifindex, err)
	}
	filter := clsactFilter(ifindex)
	filter.Fd = prog.FD()
	filter.Name = "orch"
	filter.DirectAction = true
	if err := netlink.FilterReplace(filter); err != nil {
		return fmt.Errorf("attach filter to interface %d: %w", ifindex, err)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("mark filter: %w", err)
	}
	return nil
}

// detachClsact removes the filter, and the queueing discipline with the last.
func detachClsact(path string, ifindex int) error {
	err := netlink.FilterDel(clsactFilter(ifindex))
	gone := errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
	if err != nil && !gone {
		return fmt.Errorf("remove filter from interface %d: %w", ifindex, err)
	}
	if err == nil && !filtersLeft(ifindex) {
		if err := netlink.QdiscDel(clsactQdisc(ifindex)); err != nil {
			return fmt.Errorf("remove clsact from interface %d: %w", ifindex, err)
		}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("unmark filter: %w", err)
	}
	return nil
}

// haveClsact reports whether our filter is on a device: other programs may
// remove it, or the queueing discipline with all that others have there.
func haveClsact(dev netlink.Link) (bool, error) {
	ours := clsactFilter(dev.Attrs().Index)
	filters, err := netlink.FilterList(dev, ours.Parent)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(filters, func(f netlink.Filter) bool {
		bpf, ok := f.(*netlink.BpfFilter)
		return ok && bpf.Priority == ours.Priority && bpf.Handle == ours.Handle
	}), nil
}

func filtersLeft(ifindex int) bool {
	dev, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return true
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := netlink.FilterList(dev, parent)
		if err != nil || len(filters) > 0 {
			return true
		}
	}
	return false
}
