package main

import (
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/dataplane"
)

// ingress measures packets of open connections to a published port whose
// backends are on another node: the program's cost, and how many packets one core
// receives, encapsulates and sends.
func ingress(out io.Writer, opt options) error {
	const backends = 10
	n, err := newNode(0, dataplane.Config{})
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.apply(n.plan(1, backends)); err != nil {
		return err
	}
	bare, err := newBare(n)
	if err != nil {
		return err
	}
	defer bare.close()
	var cases []*harness
	counts := []uint32{1, 1 << 10, 1 << 16}
	for _, count := range counts {
		h, err := newOpen(n, count)
		if err != nil {
			return err
		}
		defer h.close()
		cases = append(cases, h)
	}

	zero := new(series)
	costs, rates := make([]series, len(cases)), make([]series, len(cases))
	for range opt.rounds {
		if err := zero.addCost(bare, opt.packets); err != nil {
			return err
		}
		for i, h := range cases {
			if err := costs[i].addCost(h, opt.packets); err != nil {
				return err
			}
			took, err := h.run(opt.packets)
			if err != nil {
				return err
			}
			rates[i] = append(rates[i], float64(opt.packets)/took.Seconds()/1e6)
		}
	}
	targets := []string{"", "at most 150", "at most 450"}
	for i, count := range counts {
		row(out, fmt.Sprintf("ingress over bare XDP_TX, %d flows", count),
			fmt.Sprintf("%.0f ns per packet", costs[i].median()-zero.median()), targets[i],
			fmt.Sprintf("%.0f with the harness, bare %.0f; best %.0f - %.0f", costs[i].median(), zero.median(), costs[i].least(), zero.least()))
	}
	for i, count := range counts {
		row(out, fmt.Sprintf("whole path on one core, live frames, %d flows", count),
			fmt.Sprintf("%.2f Mpps", rates[i].median()), "at least 2.5", fmt.Sprintf("best %.2f", rates[i].most()))
	}
	if err := tunnelled(n, uint64(2*opt.rounds*opt.packets*len(cases))); err != nil {
		return err
	}
	entries, err := n.Entries()
	if err != nil {
		return err
	}
	if want := int(counts[len(counts)-1]); entries["flows"] < want {
		return fmt.Errorf("%d flows are remembered, not %d", entries["flows"], want)
	}
	return nil
}

// tunnelled checks that so many packets went into the tunnel.
func tunnelled(n *node, atLeast uint64) error {
	stats, err := n.Stats()
	if err != nil {
		return err
	}
	if got := stats.Verdicts["forwarded-tunnel"].Packets; got < atLeast {
		return fmt.Errorf("%d packets went into the tunnel, not %d: %v", got, atLeast, stats.Verdicts)
	}
	return nil
}

// newBare is a harness of a program that sends every packet back as it is.
func newBare(n *node) (*harness, error) {
	const tx = 3 // XDP_TX of linux/bpf.h
	spec := &ebpf.ProgramSpec{
		Name: "bare", Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "GPL", Flags: unix.BPF_F_XDP_HAS_FRAGS,
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, tx), asm.Return()},
	}
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load the bare program: %w", err)
	}
	defer program.Close() // the harness keeps it
	return newHarness(n, program, flows{count: 1 << 10, frontends: 1}, tcpACK)
}

// newOpen is a harness with packets of so many connections, which it opens.
func newOpen(n *node, count uint32) (*harness, error) {
	program, err := n.ingressProgram()
	if err != nil {
		return nil, err
	}
	defer program.Close()
	of := flows{count: count, frontends: 1}
	syn, err := newHarness(n, program, of, tcpSYN)
	if err != nil {
		return nil, err
	}
	defer syn.close()
	ack, err := newHarness(n, program, of, tcpACK)
	if err != nil {
		return nil, err
	}
	// A connection is kept from its second packet on. Between its first one and
	// that there must not be so many others that the first one is forgotten.
	const some = 8192
	for opened := uint32(0); opened < count; opened += some {
		for _, h := range []*harness{syn, ack} {
			if _, err := h.run(some); err != nil {
				ack.close()
				return nil, err
			}
		}
	}
	return ack, nil
}

// firstPacket measures packets that open connections, with few frontends and
// with many.
func firstPacket(out io.Writer, opt options) error {
	var nodes []*node
	var cases []*harness
	for i, c := range []struct{ frontends, to int }{{opt.few, opt.few}, {opt.many, opt.few}, {opt.many, opt.many}} {
		n, err := newNode(i, dataplane.Config{MaxFrontends: uint32(c.frontends) + 1, MaxBackends: uint32(c.frontends) + 1})
		if err != nil {
			return err
		}
		defer n.close()
		if err := n.apply(n.plan(c.frontends, 1)); err != nil {
			return err
		}
		program, err := n.ingressProgram()
		if err != nil {
			return err
		}
		defer program.Close()
		h, err := newHarness(n, program, flows{count: manyFlows, frontends: uint32(c.to)}, tcpSYN)
		if err != nil {
			return err
		}
		defer h.close()
		nodes, cases = append(nodes, n), append(cases, h)
	}
	costs := make([]series, len(cases))
	for range opt.rounds {
		for i, h := range cases {
			if err := costs[i].addCost(h, opt.packets); err != nil {
				return err
			}
		}
	}
	for _, n := range nodes {
		if err := tunnelled(n, uint64(opt.rounds*opt.packets)); err != nil {
			return err
		}
	}
	few := costs[0].median()
	row(out, fmt.Sprintf("first packet, %d frontends against %d", opt.many, opt.few),
		fmt.Sprintf("%.2f times", costs[1].median()/few), "at most 1.2", fmt.Sprintf("%.0f ns and %.0f ns; to the same %d frontends", costs[1].median(), few, opt.few))
	row(out, "the same, to all of them in turn",
		fmt.Sprintf("%.2f times", costs[2].median()/few), "", fmt.Sprintf("%.0f ns; nothing of a frontend is in a cache any more", costs[2].median()))
	return nil
}
