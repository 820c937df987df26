package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

// Features tries what the data plane uses of the kernel, whatever its version.
func Features() []api.Feature {
	helper := func(t ebpf.ProgramType, f asm.BuiltinFunc) bool { return features.HaveProgramHelper(t, f) == nil }
	return []api.Feature{
		{Name: "eBPF at TC", Have: features.HaveProgramType(ebpf.SchedCLS) == nil, Required: true, Without: "nothing works"},
		{Name: "bpf_redirect_peer", Have: helper(ebpf.SchedCLS, asm.FnRedirectPeer), Required: true, Without: "no packet reaches a task (Linux 5.10)"},
		{Name: "bpf_redirect_neigh", Have: helper(ebpf.SchedCLS, asm.FnRedirectNeigh), Required: true, Without: "no packet leaves the node (Linux 5.10)"},
		{Name: "LRU maps", Have: features.HaveMapType(ebpf.LRUHash) == nil, Required: true, Without: "flows cannot be remembered"},
		{Name: "TCX", Have: haveTCX(), Without: "clsact filters are used, which others may remove (Linux 6.6)"},
		{Name: "XDP", Have: features.HaveProgramType(ebpf.XDP) == nil, Without: "TC is used, which costs more per packet"},
		{Name: "XDP of several buffers", Have: xdpFrags(), Without: "no XDP at an MTU above about 3500 (Linux 5.18)"},
	}
}

// haveTCX tries to attach to an interface that does not exist: a kernel that
// has TCX says so, another that it does not know the attach type.
func haveTCX() bool {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "orch_probe", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return false
	}
	defer p.Close()
	const nobody = 1<<31 - 1
	l, err := link.AttachTCX(link.TCXOptions{Interface: nobody, Program: p, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		l.Close()
	}
	return err == nil || errors.Is(err, unix.ENODEV)
}

// Attachments lists the programs that are attached, by device, and why in this
// way. One that is not attached is in it too, with How "none": an XDP program, or
// a filter that another program has removed.
func (d *Dataplane) Attachments() ([]api.Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pins, err := names(d.linksDir())
	if err != nil {
		return nil, err
	}
	tcx := haveTCX()
	var list []api.Attachment
	for _, name := range pins {
		purpose, ifindex, ok := splitAttachment(name)
		if !ok {
			continue
		}
		dev, err := netlink.LinkByIndex(ifindex)
		if err != nil {
			continue // it went away, and takes its attachment along
		}
		a := api.Attachment{Device: dev.Attrs().Name, Program: purpose}
		info, err := os.Stat(filepath.Join(d.linksDir(), name))
		isFilter := err == nil && info.IsDir()
		a.How, a.Why = d.how(purpose, isFilter, tcx)
		if isFilter {
			switch have, err := haveClsact(dev); {
			case err != nil:
				return nil, fmt.Errorf("list filters of %s: %w", a.Device, err)
			case !have:
				a.How, a.Why = "none", "another program has removed the filter"
			}
		}
		list = append(list, a)
	}
	if !d.xdp {
		list = append(list, api.Attachment{Device: d.cfg.Uplink, Program: uplinkXDP, How: "none", Why: d.whyXDP})
	}
	slices.SortFunc(list, func(a, b api.Attachment) int {
		return strings.Compare(a.Device+a.Program, b.Device+b.Program)
	})
	return list, nil
}

// how says by what a program is attached, and why by that: isFilter, if it is a
// filter of clsact; tcx, if the kernel has TCX.
func (d *Dataplane) how(purpose string, isFilter, tcx bool) (how, why string) {
	switch {
	case purpose == uplinkXDP:
		return "xdp native", d.whyXDP
	case !isFilter:
		return "tcx", "this kernel has it"
	case tcx:
		return "clsact", "attached so by an earlier run"
	default:
		return "clsact", "this kernel has no TCX, which came with Linux 6.6"
	}
}

func askedFor(mode Mode) string { return "asked for by --datapath " + string(mode) }

// driverOf names a device's driver, or else its type.
func driverOf(dev netlink.Link) string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return dev.Type()
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, dev.Attrs().Name)
	if err != nil {
		return dev.Type()
	}
	return unix.ByteSliceToString(info.Driver[:])
}

// InBPFFS reports whether a directory is in a BPF file system, where pins
// outlive the process.
func InBPFFS(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.BPF_FS_MAGIC
}
