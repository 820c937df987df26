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
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/orch-dev/orch/bpf"
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

const (
	// DefaultUDPIdle is after how long without a datagram a UDP flow has ended.
	DefaultUDPIdle = 3 * time.Minute
	// DefaultMaxFlows is how many lasting flows are remembered.
	DefaultMaxFlows = 131072
)

// Config says where a data plane lives and how large it may grow. Sizes that
// are zero take their defaults; what is in a map is carried over when its size changes.
type Config struct {
	// PinDir is a directory in a BPF file system. When it is in none, one is
	// mounted: at /sys/fs/bpf for a directory below it, else at PinDir itself.
	PinDir string
	// Uplink is the name of the device that carries the underlay.
	Uplink string
	Mode   Mode

	MaxFlows     uint32 // lasting flows remembered as ingress node, default DefaultMaxFlows
	MaxSessions  uint32 // lasting sessions translated as backend's node, default DefaultMaxFlows
	MaxEndpoints uint32 // tasks in the cluster, default 65536
	MaxFrontends uint32 // published ports and virtual IPs, default 8192
	MaxBackends  uint32 // backends over all frontends, default 65536
	MaxMembers   uint32 // nodes in the cluster, default 4096

	UDPIdle time.Duration // default DefaultUDPIdle

	// Sysctl sets a setting of the node, by its path below /proc/sys. Who wants to
	// put back what was changed gives one that notes it.
	Sysctl func(key, value string) error
}

func (c Config) withDefaults() Config {
	if c.Mode == "" {
		c.Mode = ModeAuto
	}
	if c.Sysctl == nil {
		c.Sysctl = func(key, value string) error { return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0) }
	}
	if c.UDPIdle == 0 {
		c.UDPIdle = DefaultUDPIdle
	}
	for size, value := range map[*uint32]uint32{
		&c.MaxFlows: DefaultMaxFlows, &c.MaxSessions: DefaultMaxFlows, &c.MaxEndpoints: 65536,
		&c.MaxFrontends: 8192, &c.MaxBackends: 65536, &c.MaxMembers: 4096,
	} {
		if *size == 0 {
			*size = value
		}
	}
	return c
}

// Dataplane is one node's loaded data plane. Its methods may be called from
// several goroutines, all of them in the node's network namespace.
type Dataplane struct {
	cfg      Config
	uplink   int // interface index
	lock     *os.File
	spec     *ebpf.CollectionSpec
	programs *bpf.OrchPrograms
	maps     map[string]*ebpf.Map
	resets   resetSocket
	orphaned chan struct{} // tells Run that backends or tasks have left

	mu         sync.Mutex
	made       []string         // maps that are not pinned yet
	migrations []*migration     // to maps of another layout, until the programs are switched
	carried    []Carried        // by those that are done
	have       *state           // what is in the maps; nil before it was first read
	last       *api.NetworkPlan // that have is of; nil if that is not known
	tasks      map[int]bool     // interfaces with the program attached
	tunnels    map[int]bool     // the same
	topTable   uint32           // the highest id of a frontend since Open
	switched   bool             // the attachments run this process's programs
	xdp        bool
	whyXDP     string // XDP was taken, or was not
	frontends  map[bpf.OrchFrontend6Key]frontendName
}

// Open loads and verifies every program, then attaches them to the uplink or
// switches the pinned attachments to them, reusing the pinned state. First
// start, restart and upgrade are this same call; nothing is ever detached on
// the way. Where the layout or the size of a map has changed, its entries are carried
// over first, and what changes meanwhile after the switch (Carried). Of a map whose
// old layout cannot be understood they are not: where that has the plan, the
// attachments stay with the old programs until the first Apply has filled it.
func Open(cfg Config) (*Dataplane, error) {
	cfg = cfg.withDefaults()
	uplink, err := net.InterfaceByName(cfg.Uplink)
	if err != nil {
		return nil, fmt.Errorf("find uplink %q: %w", cfg.Uplink, err)
	}
	if err := prepareDevices(cfg); err != nil {
		return nil, err
	}
	lock, err := prepare(cfg.PinDir)
	if err != nil {
		return nil, err
	}
	d := &Dataplane{cfg: cfg, uplink: uplink.Index, lock: lock, orphaned: make(chan struct{}, 1), tasks: make(map[int]bool), tunnels: make(map[int]bool)}
	if err := d.open(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dataplane) open() error {
	var err error
	if d.resets, err = openResets(); err != nil {
		return err
	}
	if d.spec, err = prepareSpec(d.cfg, d.uplink); err != nil {
		return err
	}
	if d.maps, d.made, err = openMaps(d.cfg.PinDir, d.spec); err != nil {
		return err
	}
	if d.programs, err = loadPrograms(d.spec, d.maps); err != nil {
		return err
	}
	if d.migrations, err = predecessors(d.cfg.PinDir, d.spec, d.maps); err != nil {
		return err
	}
	complete, err := d.carry(d.made)
	if err != nil {
		return err
	}
	attached, err := names(d.linksDir())
	if err != nil {
		return err
	}
	if len(attached) > 0 && !complete {
		return nil
	}
	return d.switchAttachments()
}

func (d *Dataplane) linksDir() string { return filepath.Join(d.cfg.PinDir, linksDir) }

// prepareDevices lets the programs ask the routing table about packets that
// arrived on the uplink, and hand the node's own processes the replies from
// addresses of the node by way of the loopback device. In IPv6 they ask as from
// the loopback device, since the uplink of a node that forwards would take no
// more router advertisements.
func prepareDevices(cfg Config) error {
	settings := []string{"net/ipv4/conf/" + cfg.Uplink + "/forwarding", "net/ipv4/conf/lo/route_localnet", "net/ipv4/conf/lo/accept_local"}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
		settings = append(settings, "net/ipv6/conf/lo/forwarding")
	}
	for _, setting := range settings {
		if now, err := os.ReadFile(filepath.Join("/proc/sys", setting)); err == nil && strings.TrimSpace(string(now)) == "1" {
			continue
		}
		if err := cfg.Sysctl(setting, "1"); err != nil {
			return fmt.Errorf("set %s: %w", setting, err)
		}
	}
	return nil
}

// switchAttachments makes every attachment run this process's programs, and
// removes those that are not wanted any more. What the programs of before have
// written into maps of another layout is carried over, and those maps go.
func (d *Dataplane) switchAttachments() error {
	if err := pinMaps(d.cfg.PinDir, d.spec, d.maps, d.made); err != nil {
		return err
	}
	d.made = nil
	if err := d.hold(true); err != nil {
		return err
	}
	if err := d.attachAll(); err != nil {
		return err
	}
	d.switched = true
	if err := errors.Join(d.carryRest(), d.hold(false)); err != nil {
		return err
	}
	return removeOldMaps(d.cfg.PinDir, d.spec)
}

// attachAll begins with the tasks, because only the new programs know to hold up
// their replies for a moment.
func (d *Dataplane) attachAll() error {
	dir := d.linksDir()
	attached, err := names(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range attached {
		purpose, ifindex, _ := splitAttachment(name)
		devices, program := d.devicesOf(purpose)
		if program == nil {
			continue
		}
		if _, err := net.InterfaceByIndex(ifindex); err != nil {
			errs = append(errs, detach(filepath.Join(dir, name)))
			continue
		}
		errs = append(errs, attach(dir, purpose, ifindex, program))
		devices[ifindex] = true
	}
	if err := attach(dir, uplinkTC, d.uplink, d.programs.UplinkTc); err != nil {
		return err
	}
	if err := d.attachXDP(); err != nil {
		return err
	}
	if err := attach(dir, loopback, loopbackIndex, d.programs.FromNode); err != nil {
		return err
	}
	for _, name := range attached {
		purpose, ifindex, _ := splitAttachment(name)
		if ofUplink := purpose == uplinkTC || purpose == uplinkXDP; ofUplink && ifindex != d.uplink || purpose == uplinkXDP && !d.xdp {
			errs = append(errs, detach(filepath.Join(dir, name)))
		}
	}
	return errors.Join(errs...)
}

// devicesOf gives the interfaces that come and go by the plan, of one purpose, and
// their program; nil of another purpose.
func (d *Dataplane) devicesOf(purpose string) (map[int]bool, *ebpf.Program) {
	switch purpose {
	case taskTC:
		return d.tasks, d.programs.FromTask
	case tunnelTC:
		return d.tunnels, d.programs.FromTunnel
	}
	return nil, nil
}

// attachXDP attaches the XDP program where the mode asks for it.
func (d *Dataplane) attachXDP() error {
	switch d.cfg.Mode {
	case ModeTC:
		d.whyXDP = askedFor(ModeTC)
		return nil
	case ModeXDP, ModeAuto:
	default:
		return fmt.Errorf("data path mode %q: want auto, xdp or tc", d.cfg.Mode)
	}
	dev, err := netlink.LinkByIndex(d.uplink)
	if err != nil {
		return fmt.Errorf("look up uplink: %w", err)
	}
	driver := driverOf(dev)
	if d.cfg.Mode == ModeAuto && driver == "veth" {
		d.whyXDP = d.cfg.Uplink + " is a veth: XDP on it ends segmentation offload at its other end; --datapath xdp takes it"
		return nil
	}
	err = attach(d.linksDir(), uplinkXDP, d.uplink, d.programs.UplinkXdp)
	switch {
	case err == nil && d.cfg.Mode == ModeXDP:
		d.xdp, d.whyXDP = true, askedFor(ModeXDP)
		return nil
	case err == nil:
		d.xdp, d.whyXDP = true, fmt.Sprintf("the driver of %s has it: %s", d.cfg.Uplink, driver)
		return nil
	case d.cfg.Mode == ModeAuto:
		d.whyXDP = fmt.Sprintf("no native XDP on %s with the driver %s: %v", d.cfg.Uplink, driver, explainXDP(dev, err))
		return nil
	}
	return fmt.Errorf("%w; use --datapath auto or tc", explainXDP(dev, err))
}

// Describe says in a few words what is attached to the uplink; Attachments says
// it of each device, and why.
func (d *Dataplane) Describe() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	tc := "tcx"
	path := filepath.Join(d.linksDir(), attachmentName(uplinkTC, d.uplink))
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		tc = "clsact"
	}
	switch {
	case d.xdp:
		return fmt.Sprintf("xdp native on %s + %s", d.cfg.Uplink, tc)
	default:
		return fmt.Sprintf("%s on %s", tc, d.cfg.Uplink)
	}
}

// Close leaves everything pinned and running.
func (d *Dataplane) Close() error {
	closeMaps(d.maps)
	closeMigrations(d.migrations)
	err := d.resets.close()
	if d.programs != nil {
		err = errors.Join(err, d.programs.Close())
	}
	return errors.Join(err, d.lock.Close())
}
