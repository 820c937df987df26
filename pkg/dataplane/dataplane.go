// Package dataplane puts a node's network plan into the kernel: it loads the
// eBPF programs, attaches them to the uplink and to every task's veth, keeps
// everything pinned so that traffic never depends on the daemon, and reads the
// counters.
//
// The calling thread's network namespace is the node's: Open, Apply and Purge
// must run in it. A caller that is not in the node's namespace locks its
// goroutine to an OS thread and enters it first.
package dataplane

import (
	"context"
	"errors"
	"net/netip"

	"github.com/orch-dev/orch/pkg/api"
)

// Mode is how the ingress program is attached to the uplink.
type Mode string

const (
	// ModeAuto takes native XDP where the driver has it and is not veth, and
	// TC alone otherwise.
	ModeAuto Mode = "auto"
	// ModeXDP takes native XDP (on a veth too) or fails.
	ModeXDP Mode = "xdp"
	// ModeTC uses TC alone.
	ModeTC Mode = "tc"
)

// DefaultPinDir is where a node that is a whole machine keeps its pins.
const DefaultPinDir = "/sys/fs/bpf/orch"

// Config says where a data plane lives and how large it may grow. Sizes that
// are zero take their defaults; a changed size starts that map afresh.
type Config struct {
	// PinDir is a directory in a BPF file system. When it is in none, one is
	// mounted: at /sys/fs/bpf for a directory below it, else at PinDir itself.
	PinDir string
	// Uplink is the name of the device that carries the underlay.
	Uplink string
	Mode   Mode

	MaxFlows     uint32 // flows remembered as ingress node, default 131072
	MaxSessions  uint32 // sessions translated as backend's node, default 131072
	MaxEndpoints uint32 // tasks in the cluster, default 65536
	MaxFrontends uint32 // published ports and virtual IPs, default 8192
	MaxBackends  uint32 // backends over all frontends, default 65536
	MaxMembers   uint32 // nodes in the cluster, default 4096
}

// Dataplane is one node's loaded data plane. Its methods may be called from
// several goroutines, all of them in the node's network namespace.
type Dataplane struct{}

// Open loads and verifies every program, then attaches them to the uplink or
// switches the pinned attachments to them, reusing the pinned state. First
// start, restart and upgrade are this same call; nothing is ever detached on
// the way.
func Open(cfg Config) (*Dataplane, error) { return nil, errors.ErrUnsupported }

// Apply makes the kernel's state equal to the plan. It adds before it deletes,
// and applying the same plan twice changes nothing.
func (d *Dataplane) Apply(ctx context.Context, plan api.NetworkPlan) error {
	return errors.ErrUnsupported
}

// Describe says in a few words what is attached where.
func (d *Dataplane) Describe() string { return "" }

// Stats reads every counter.
func (d *Dataplane) Stats() (Stats, error) { return Stats{}, errors.ErrUnsupported }

// Entries counts the entries in use in each state map, by map name; counters
// excluded. With an empty plan every count is zero.
func (d *Dataplane) Entries() (map[string]int, error) { return nil, errors.ErrUnsupported }

// Close leaves everything pinned and running.
func (d *Dataplane) Close() error { return errors.ErrUnsupported }

// Purge removes every pin under pinDir and every attachment made from it.
func Purge(pinDir string) error { return errors.ErrUnsupported }

// Counter counts packets and their bytes, from the IP header on.
type Counter struct {
	Packets uint64
	Bytes   uint64
}

// Stats are the data plane's counters since its maps were made.
type Stats struct {
	Frontends []FrontendStats
	Backends  []BackendStats
	// Drops, by reason: packets that went nowhere.
	Drops map[string]Counter
	// Verdicts, by name: what became of every other packet that was looked at.
	Verdicts map[string]Counter
}

// FrontendStats counts what clients sent to a frontend through this node.
type FrontendStats struct {
	api.FrontendKey
	Service string
	Counter
	Flows uint64 // new flows
}

// BackendStats counts what this node sent to a backend of a frontend.
type BackendStats struct {
	Frontend api.FrontendKey
	Service  string
	Addr     netip.Addr
	Port     uint16
	Counter
	Flows uint64 // new flows
}
