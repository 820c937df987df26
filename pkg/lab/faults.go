package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/netdev"
)

// State is what a node of a lab is doing.
type State string

const (
	StateUp     State = "up"     // the daemon runs and the wire is plugged in
	StateCut    State = "cut"    // the daemon runs, the wire is cut
	StateOff    State = "off"    // as after a power cut
	StateFailed State = "failed" // the wire is plugged in, the daemon does not run
)

// Status is a node's state, with the daemon's process, or 0.
type Status struct {
	State State
	PID   int
}

// Status looks at what a node is doing now.
func (l *Lab) Status(n *Node) Status {
	var pid int
	if p := n.daemon(); p != nil {
		pid = p.pid
		p.close()
	}
	wired := l.portUp(n)
	switch {
	case pid != 0 && wired:
		return Status{StateUp, pid}
	case pid != 0:
		return Status{StateCut, pid}
	case wired:
		return Status{State: StateFailed}
	default:
		return Status{State: StateOff}
	}
}

// Kill cuts a node's power: its wire goes down, its daemon and its containers
// get SIGKILL, and what it had in memory (programs, maps, run directory) is
// lost. Its disk stays.
func (l *Lab) Kill(ctx context.Context, node string) error {
	n, err := l.Find(node)
	if err != nil {
		return err
	}
	if err := l.setPort(n, false); err != nil {
		return fmt.Errorf("cut wire of %s: %w", node, err)
	}
	if err := n.killDaemon(ctx); err != nil {
		return err
	}
	docker, err := openEngine()
	if err != nil {
		return err
	}
	defer docker.close()
	return errors.Join(docker.kill(ctx, l.options.Name, n.Name), removeTree(n.PinDir), removeTree(n.RunDir))
}

// KillDaemon sends SIGKILL to a node's daemon, and leaves all else as it is.
func (l *Lab) KillDaemon(ctx context.Context, node string) error {
	n, err := l.Find(node)
	if err != nil {
		return err
	}
	return n.killDaemon(ctx)
}

// StopDaemon has a node's daemon end politely, as for an upgrade, and waits until
// it has.
func (l *Lab) StopDaemon(ctx context.Context, node string) error {
	n, err := l.Find(node)
	if err != nil {
		return err
	}
	return n.endDaemon(ctx, unix.SIGTERM)
}

func (n *Node) killDaemon(ctx context.Context) error { return n.endDaemon(ctx, unix.SIGKILL) }

func (n *Node) endDaemon(ctx context.Context, sig unix.Signal) error {
	p := n.daemon()
	if p == nil {
		return nil
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := p.end(ctx, sig); err != nil {
		return fmt.Errorf("end daemon of %s: %w", n.Name, err)
	}
	return nil
}

// Pause stops a node's daemon where it is, as if it hung; Resume lets it go on.
func (l *Lab) Pause(node string) error { return l.signal(node, unix.SIGSTOP) }

// Resume lets a daemon go on that Pause has stopped.
func (l *Lab) Resume(node string) error { return l.signal(node, unix.SIGCONT) }

func (l *Lab) signal(node string, sig unix.Signal) error {
	n, err := l.Find(node)
	if err != nil {
		return err
	}
	p := n.daemon()
	if p == nil {
		return fmt.Errorf("signal the daemon of %s: it does not run", node)
	}
	defer p.close()
	if err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); err != nil {
		return fmt.Errorf("signal the daemon of %s: %w", node, err)
	}
	return nil
}

// Move cuts a node's power and gives its machine another address of the underlay,
// which its daemon has from the next Start on.
func (l *Lab) Move(ctx context.Context, node string, addr netip.Addr) error {
	n, err := l.Find(node)
	if err != nil {
		return err
	}
	if err := l.Kill(ctx, node); err != nil {
		return err
	}
	err = netdev.Do(n.NetNS, func() error { return readdress(n.Addr, addr) })
	if err != nil {
		return fmt.Errorf("move %s to %s: %w", node, addr, err)
	}
	n.Addr = addr
	return nil
}

// readdress replaces the addresses of the uplink, and the default route that goes
// with the first.
func readdress(from, to netip.Addr) error {
	link, err := netlink.LinkByName(uplink)
	if err != nil {
		return err
	}
	for _, a := range []struct{ from, to netip.Prefix }{
		{netip.PrefixFrom(from, underlay.Bits()), netip.PrefixFrom(to, underlay.Bits())},
		{netip.PrefixFrom(Addr6(from), underlay6.Bits()), netip.PrefixFrom(Addr6(to), underlay6.Bits())},
	} {
		old := &net.IPNet{IP: a.from.Addr().AsSlice(), Mask: net.CIDRMask(a.from.Bits(), a.from.Addr().BitLen())}
		if err := netlink.AddrDel(link, &netlink.Addr{IPNet: old}); err != nil {
			return err
		}
		if err := addAddr(uplink, a.to); err != nil {
			return err
		}
	}
	return netlink.RouteReplace(&netlink.Route{Gw: ClientAddr.AsSlice()})
}

// Start plugs a node's wire in and starts its daemon, unless it runs. It
// returns when the daemon answers on its socket.
func (l *Lab) Start(ctx context.Context, node string) error {
	n, err := l.Find(node)
	if err != nil {
		return err
	}
	if err := l.Heal(node); err != nil {
		return err
	}
	if p := n.daemon(); p != nil {
		p.close()
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return l.startDaemon(ctx, n)
}

// Cut unplugs a node's wire at the switch. The node goes on running, alone.
func (l *Lab) Cut(node string) error { return l.wire(node, false) }

// Heal plugs a node's wire in again.
func (l *Lab) Heal(node string) error { return l.wire(node, true) }

func (l *Lab) wire(node string, up bool) error {
	n, err := l.Find(node)
	if err != nil {
		return err
	}
	if err := l.setPort(n, up); err != nil {
		return fmt.Errorf("switch wire of %s: %w", node, err)
	}
	return nil
}
