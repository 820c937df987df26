package netdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newNS makes an anonymous network namespace that goes away with the test.
func newNS(t *testing.T) string {
	t.Helper()
	made := make(chan *os.File, 1)
	fail := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			fail <- err
			return
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			fail <- err
			return
		}
		made <- ns
	}()
	select {
	case err := <-fail:
		t.Fatalf("new network namespace (tests need root): %v", err)
		return ""
	case ns := <-made:
		t.Cleanup(func() { ns.Close() })
		return fmt.Sprintf("/proc/self/fd/%d", ns.Fd())
	}
}

// in runs fn in a namespace and fails the test on an error.
func in(t *testing.T, ns string, fn func() error) {
	t.Helper()
	if err := Do(ns, fn); err != nil {
		t.Fatal(err)
	}
}

// fabric is a node with an uplink to a namespace outside it.
type fabric struct {
	node, outside string
	links         *Links
}

var (
	nodeAddr    = netip.MustParseAddr("192.0.2.1")
	outsideAddr = netip.MustParseAddr("192.0.2.2")
	farAddr     = netip.MustParseAddr("198.51.100.7") // behind the default route
	dnsAddr     = netip.MustParseAddr("169.254.20.53")
	pool        = netip.MustParsePrefix("10.128.0.0/10")

	nodeAddr6    = netip.MustParseAddr("2001:db8:1::1")
	outsideAddr6 = netip.MustParseAddr("2001:db8:1::2")
	farAddr6     = netip.MustParseAddr("2001:db8:2::7")
	pool6        = netip.MustParsePrefix("fd00:1:2:3::/96")
)

func newFabric(t *testing.T) *fabric {
	t.Helper()
	f := &fabric{node: newNS(t), outside: newNS(t)}
	f.links = New(Config{Uplink: "up0", DNSAddr: dnsAddr, Pool: pool, Pool6: pool6, Owner: "test"})
	in(t, f.node, func() error {
		ns, err := os.Open(f.outside)
		if err != nil {
			return err
		}
		defer ns.Close()
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "up0"
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerNamespace = "eth0", netlink.NsFd(ns.Fd())
		if err := netlink.LinkAdd(pair); err != nil {
			return err
		}
		return errors.Join(give("up0", netip.PrefixFrom(nodeAddr, 24)), give("up0", netip.PrefixFrom(nodeAddr6, 64)),
			netlink.RouteAdd(&netlink.Route{Gw: outsideAddr.AsSlice()}), netlink.RouteAdd(&netlink.Route{Gw: outsideAddr6.AsSlice()}))
	})
	in(t, f.outside, func() error {
		return errors.Join(give("lo", netip.PrefixFrom(farAddr, 32)), give("eth0", netip.PrefixFrom(outsideAddr, 24)),
			give("lo", netip.PrefixFrom(farAddr6, 128)), give("eth0", netip.PrefixFrom(outsideAddr6, 64)))
	})
	in(t, f.node, func() error { return f.links.Setup(t.Context()) })
	return f
}

func give(device string, addr netip.Prefix) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	ipnet := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())}
	return netlink.AddrAdd(link, &netlink.Addr{IPNet: ipnet, Flags: unix.IFA_F_NODAD})
}

func (f *fabric) attach(t *testing.T, link Link) int {
	t.Helper()
	var index int
	in(t, f.node, func() (err error) {
		index, err = f.links.Attach(t.Context(), link)
		return err
	})
	return index
}

// listen opens a TCP listener in ns that answers every connection with the
// client's address.
func listen(t *testing.T, ns string, at netip.AddrPort) {
	t.Helper()
	var listener net.Listener
	in(t, ns, func() (err error) {
		listener, err = net.Listen("tcp", at.String())
		return err
	})
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, conn.RemoteAddr().(*net.TCPAddr).IP.String())
			conn.Close()
		}
	}()
}

// seenAs connects from ns and returns the address the listener saw.
func seenAs(t *testing.T, ns string, to netip.AddrPort) string {
	t.Helper()
	var conn net.Conn
	in(t, ns, func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", to.String())
		return err
	})
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// awaitUp waits until the kernel has announced that a link is up.
func awaitUp(device string) error {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		link, err := netlink.LinkByName(device)
		if err != nil || link.Attrs().OperState == netlink.OperUp {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is %s", device, link.Attrs().OperState)
		}
	}
}
