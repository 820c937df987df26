package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/dataplane"
	"github.com/orch-dev/orch/pkg/netdev"
)

// nodeCommand is the first argument of the process that runs one node's data
// plane; the second is the file with its nodeConfig.
const nodeCommand = "node"

type nodeConfig struct {
	PinDir string
	Mode   dataplane.Mode
	Plan   api.NetworkPlan
}

// underOrch runs orch's data plane on every node beside an engine's rules, with the
// workload on n2 as the only backend of the published port.
func underOrch(mode dataplane.Mode, ret api.Return) func(context.Context, *fabric) error {
	return func(ctx context.Context, f *fabric) error {
		if mode == dataplane.ModeXDP {
			if err := f.readyForXDP(); err != nil {
				return err
			}
		}
		for i := 1; i <= nodeCount; i++ {
			if err := f.engineRules(ctx, i); err != nil {
				return err
			}
			// As pkg/netdev makes a task's interface.
			if err := inNetns(f.netns(workloadHost(i)), func() error { return netdev.SetGRO(uplink, true) }); err != nil {
				return err
			}
			if err := f.startNode(i, mode, ret); err != nil {
				return fmt.Errorf("data plane of n%d: %w", i, err)
			}
		}
		return nil
	}
}

// startNode starts node i's data plane and waits until its plan is in the
// kernel. The process has a mount namespace of its own: pins are in a BPF file
// system that is gone when it is, however it ended.
func (f *fabric) startNode(i int, mode dataplane.Mode, ret api.Return) error {
	config, err := json.Marshal(nodeConfig{
		PinDir: filepath.Join(f.dir, "bpf-"+nodeHost(i)),
		Mode:   mode,
		Plan:   plan(i, ret),
	})
	if err != nil {
		return fmt.Errorf("encode plan: %w", err)
	}
	path, err := f.file(nodeHost(i)+".json", string(config))
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	cmd := exec.Command(self, nodeCommand, path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if _, err := cmd.StdinPipe(); err != nil { // open until the fabric is closed
		return fmt.Errorf("make pipe: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	if err := f.start(nodeHost(i), cmd); err != nil {
		return err
	}
	attached, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return fmt.Errorf("ended after %q%s", attached, f.logs())
	}
	fmt.Fprintf(os.Stderr, "n%d: %s", i, attached)
	return nil
}

// plan is the network plan of node i.
func plan(i int, ret api.Return) api.NetworkPlan {
	p := api.NetworkPlan{
		Generation: 1,
		Node:       api.NodeID(nodeHost(i)),
		Underlay:   nodeAddr(i),
		Pool:       pool,
		Frontends: []api.Frontend{{
			FrontendKey: api.FrontendKey{Addr: netip.IPv4Unspecified(), Port: publishedPort, Protocol: api.TCP},
			Service:     "bench",
			DSR:         ret == api.ReturnDSR,
			Backends:    []api.Backend{{Addr: workload.Addr(), Port: workload.Port(), Weight: 1}},
		}},
	}
	for j := 1; j <= nodeCount; j++ {
		p.Members = append(p.Members, api.Member{Node: api.NodeID(nodeHost(j)), Addr: nodeAddr(j)})
		p.Endpoints = append(p.Endpoints, api.PlanEndpoint{
			Addr: workloadAddr(j), Node: nodeAddr(j), Networks: []uint32{1}, Outside: true,
		})
	}
	return p
}

// runNode is the process startNode starts: it puts the plan into the kernel of
// the namespace it was started in, says so, and stays until in ends.
func runNode(configFile string, in io.Reader, out io.Writer) error {
	content, err := os.ReadFile(configFile)
	if err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	var config nodeConfig
	if err := json.Unmarshal(content, &config); err != nil {
		return fmt.Errorf("decode plan: %w", err)
	}
	device, err := net.InterfaceByName(taskDevice)
	if err != nil {
		return fmt.Errorf("look up workload's interface: %w", err)
	}
	for i, e := range config.Plan.Endpoints {
		if e.Node == config.Plan.Underlay {
			config.Plan.Endpoints[i].IfIndex = device.Index
		}
	}
	plane, err := dataplane.Open(dataplane.Config{PinDir: config.PinDir, Uplink: uplink, Mode: config.Mode})
	if err != nil {
		return fmt.Errorf("open data plane: %w", err)
	}
	defer plane.Close()
	if err := plane.Apply(context.Background(), config.Plan); err != nil {
		return fmt.Errorf("apply plan: %w", err)
	}
	if _, err := fmt.Fprintln(out, strings.ReplaceAll(plane.Describe(), "\n", " ")); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

// readyForXDP makes veth pairs carry what native XDP sends and receives, as a
// wire would: a frame an XDP program sends out of a veth is lost unless the
// other end has an XDP program too, and a checksum that is left to the device
// is never finished.
func (f *fabric) readyForXDP() error {
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "obench_pass", Type: ebpf.XDP, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()}, // XDP_PASS
	})
	if err != nil {
		return fmt.Errorf("load XDP program: %w", err)
	}
	defer pass.Close() // the attachments keep it
	for i := 1; i <= nodeCount; i++ {
		if err := f.attachXDP(switchHost, nodeHost(i), pass); err != nil {
			return err
		}
		if err := inNetns(f.netns(nodeHost(i)), func() error { return netdev.SetTxChecksum(uplink, false) }); err != nil {
			return err
		}
	}
	return inNetns(f.netns(clientHost), func() error { return netdev.SetTxChecksum(uplink, false) })
}

// attachXDP attaches the program to a host's device until the fabric is closed.
func (f *fabric) attachXDP(host, device string, program *ebpf.Program) error {
	return inNetns(f.netns(host), func() error {
		d, err := net.InterfaceByName(device)
		if err != nil {
			return fmt.Errorf("look up %s: %w", device, err)
		}
		attached, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: d.Index, Flags: link.XDPDriverMode})
		if err != nil {
			return fmt.Errorf("attach XDP to %s: %w", device, err)
		}
		f.closers = append(f.closers, attached.Close)
		return nil
	})
}
