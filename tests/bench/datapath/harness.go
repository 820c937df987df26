package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// harness feeds a program with packets of many flows. It is itself a program,
// which gives the packet the client's address and port of the next flow, and the port that it goes to, and then
// continues in the program under test, so that both are run by the kernel's own
// loop (BPF_F_TEST_XDP_LIVE_FRAMES), on frames that really leave by the device.
//
// A frame that comes back from there has the 50 bytes of the tunnel no more in
// front of it and is otherwise as it was: the program under test does not change
// what is behind its tunnel header.
type harness struct {
	program *ebpf.Program
	counter *ebpf.Map // of packets
	next    *ebpf.Map // the program under test
	ifindex int
	frame   []byte
}

// flows says which flow packet i is of, i % count, and how many frontends the
// flows are spread over. count is a power of 2.
type flows struct {
	count, frontends uint32
}

// manyFlows are so many that no packet of a harness is of a flow of another.
const manyFlows = 1 << 30

// Of a frame: Ethernet, IPv4 without options, TCP without options.
const (
	ipAt      = 14
	tcpAt     = ipAt + 20
	payloadAt = tcpAt + 20
	saddrAt   = ipAt + 12
)

// portBits of a flow's number are in the client's port, the rest in its address.
const portBits = 14

const (
	tcpSYN = 0x02
	tcpACK = 0x10
)

// frameTo is a TCP packet without payload to an address.
func frameTo(addr netip.Addr, flags byte) []byte {
	f := make([]byte, payloadAt+6) // 60 bytes, as short as Ethernet has them
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0})
	ip, tcp := f[ipAt:], f[tcpAt:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], payloadAt-ipAt)
	copy(ip[12:], netip.MustParseAddr("198.18.0.0").AsSlice())
	copy(ip[16:], addr.AsSlice())
	tcp[12], tcp[13] = 5<<4, flags
	return f
}

// newHarness makes one for the program under test, whose frames come in at a
// node's uplink.
func newHarness(n *node, under *ebpf.Program, f flows, tcpFlags byte) (_ *harness, err error) {
	h := &harness{ifindex: n.uplink, frame: frameTo(n.addr(), tcpFlags)}
	defer func() {
		if err != nil {
			h.close()
			err = fmt.Errorf("make harness: %w", err)
		}
	}()
	h.counter, err = ebpf.NewMap(&ebpf.MapSpec{Name: "packets", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, err
	}
	// A program that takes frames in several buffers continues only in one that
	// does, and the other way round.
	for _, flags := range []uint32{unix.BPF_F_XDP_HAS_FRAGS, 0} {
		if err = h.load(under, f, flags); err == nil {
			return h, nil
		}
	}
	return nil, err
}

func (h *harness) load(under *ebpf.Program, f flows, flags uint32) (err error) {
	h.next, err = ebpf.NewMap(&ebpf.MapSpec{Name: "under_test", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	h.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: "harness", Type: ebpf.XDP, AttachType: ebpf.AttachXDP, License: "GPL", Flags: flags, Instructions: h.instructions(f)})
	if err == nil {
		err = h.next.Put(uint32(0), under)
	}
	if err != nil {
		h.next.Close()
		h.program.Close()
	}
	return err
}

func (h *harness) instructions(f flows) asm.Instructions {
	const (
		ctx, data, end, number, at = asm.R6, asm.R7, asm.R8, asm.R9, asm.R1
		aborted                    = 0 // XDP_ABORTED
	)
	return asm.Instructions{
		asm.Mov.Reg(ctx, asm.R1),
		asm.LoadMem(data, ctx, 0, asm.Word),
		asm.LoadMem(end, ctx, 4, asm.Word),
		asm.Mov.Reg(at, data),
		asm.Add.Imm(at, payloadAt),
		asm.JGT.Reg(at, end, "out"),

		asm.LoadMapValue(at, h.counter.FD(), 0),
		asm.LoadMem(number, at, 0, asm.DWord),
		asm.Mov.Reg(asm.R2, number),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(at, 0, asm.R2, asm.DWord),
		asm.And.Imm(number, int32(f.count-1)),

		asm.Mov.Reg(asm.R2, number),
		asm.Mod.Imm(asm.R2, int32(f.frontends)),
		asm.Add.Imm(asm.R2, firstPort),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.StoreMem(data, tcpAt+2, asm.R2, asm.Half),

		asm.Mov.Reg(asm.R2, number), // 16384 + the lower bits, in whichever byte order
		asm.And.Imm(asm.R2, 1<<portBits-1),
		asm.Or.Imm(asm.R2, 1<<portBits),
		asm.StoreMem(data, tcpAt, asm.R2, asm.Half),
		asm.RSh.Imm(number, portBits), // 198.18.0.0 + the upper bits
		asm.HostTo(asm.BE, number, asm.Word),
		asm.Or.Imm(number, 198|18<<8),
		asm.StoreMem(data, saddrAt, number, asm.Word),

		asm.Mov.Reg(asm.R1, ctx),
		asm.LoadMapPtr(asm.R2, h.next.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, aborted).WithSymbol("out"),
		asm.Return(),
	}
}

func (h *harness) close() {
	h.counter.Close()
	h.next.Close()
	h.program.Close()
}

// xdpContext is struct xdp_md of linux/bpf.h.
type xdpContext struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32
}

// batch is how many frames the kernel takes through the program, and then out of
// the device, at once.
const batch = 64

// run sends packets through the program and returns how long that took.
func (h *harness) run(packets int) (time.Duration, error) {
	began := time.Now()
	_, err := h.program.Run(&ebpf.RunOptions{
		Data: h.frame, Repeat: uint32(packets), BatchSize: batch, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES,
		Context: xdpContext{DataEnd: uint32(len(h.frame)), IngressIfindex: uint32(h.ifindex)},
	})
	if err != nil {
		return 0, fmt.Errorf("run with live frames: %w", err)
	}
	return time.Since(began), nil
}

// cost is what the program takes for one packet, by the kernel's own account,
// in nanoseconds; what it takes to count that, and the harness, are in it.
func (h *harness) cost(packets int) (float64, error) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return 0, fmt.Errorf("enable run time statistics: %w", err)
	}
	defer stats.Close()
	before, err := h.program.Stats()
	if err != nil {
		return 0, err
	}
	if _, err := h.run(packets); err != nil {
		return 0, err
	}
	after, err := h.program.Stats()
	if err != nil {
		return 0, err
	}
	runs := after.RunCount - before.RunCount
	if runs < uint64(packets) {
		return 0, fmt.Errorf("the program ran %d times, not %d", runs, packets)
	}
	return float64(after.Runtime-before.Runtime) / float64(runs), nil
}
