package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// The fabric: a switch, nodes n1..n3 and a client on it, and behind each node
// one workload in its own namespace. Every contender gets one of its own, so
// that no contender pays for the hooks, routes and programs of another.
const nodeCount = 3

// Hosts of the fabric, as namespaces are named.
const (
	switchHost = "switch"
	clientHost = "client"
)

func nodeHost(i int) string     { return fmt.Sprintf("n%d", i) }
func workloadHost(i int) string { return fmt.Sprintf("w%d", i) }

var (
	// pool holds the workloads' addresses, the nodes' own are from TEST-NET-1.
	pool       = netip.MustParsePrefix("10.128.0.0/10")
	clientAddr = netip.MustParseAddr("192.0.2.100")
	// gateway is every workload's next hop; no interface has the address.
	gateway = netip.MustParseAddr("169.254.1.1")
)

func nodeAddr(i int) netip.Addr     { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }
func workloadAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 128, 0, byte(i)}) }

// endpointMAC is the hardware address of the veth end that has addr or, on the
// node's side, is the gateway.
func endpointMAC(addr netip.Addr) string {
	mac := api.EndpointMAC(addr)
	return net.HardwareAddr(mac[:]).String()
}

const (
	uplink       = "eth0" // of nodes, client and workloads
	taskDevice   = "task" // the node's side of its workload's veth
	underlayMTU  = 1500
	overlayMTU   = underlayMTU - api.OverlayOverhead
	workloadPort = 80
	streamPort   = 5201
)

// fabric is one built copy of the fabric with what runs in it.
type fabric struct {
	prefix string // of its namespaces' names
	dir    string // files of its programs
	hosts  []string
	procs  []*exec.Cmd
	// closers undo what is neither a namespace, a process nor a file in dir.
	closers []func() error
}

// netns is the name of a host's network namespace.
func (f *fabric) netns(host string) string { return f.prefix + host }

// newFabric builds namespaces, links and addresses; routes between them are the
// contender's. workloadMTU is in bytes. Close it also after an error.
func newFabric(ctx context.Context, name string, workloadMTU int) (*fabric, error) {
	f := &fabric{prefix: fmt.Sprintf("%s%d-%s-", netnsPrefix, os.Getpid(), name)}
	dir, err := os.MkdirTemp("", f.prefix)
	if err != nil {
		return f, fmt.Errorf("make directory: %w", err)
	}
	f.dir = dir
	hosts := []string{switchHost, clientHost}
	for i := 1; i <= nodeCount; i++ {
		hosts = append(hosts, nodeHost(i), workloadHost(i))
	}
	for _, host := range hosts {
		if err := f.addHost(ctx, host); err != nil {
			return f, err
		}
	}
	if err := f.addSwitch(ctx); err != nil {
		return f, err
	}
	for i := 1; i <= nodeCount; i++ {
		if err := f.addWorkload(ctx, i, workloadMTU); err != nil {
			return f, err
		}
	}
	return f, nil
}

// addHost makes a namespace.
func (f *fabric) addHost(ctx context.Context, host string) error {
	f.hosts = append(f.hosts, host)
	if out, err := exec.CommandContext(ctx, "ip", "netns", "add", f.netns(host)).CombinedOutput(); err != nil {
		return fmt.Errorf("add network namespace %s: %w: %s", f.netns(host), err, tail(string(out)))
	}
	err := setSysctls(f.netns(host),
		"ipv6/conf/all/disable_ipv6=1", "ipv6/conf/default/disable_ipv6=1", // no router solicitations while measuring
		"ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0",
		"ipv4/conf/all/send_redirects=0", "ipv4/conf/default/send_redirects=0",
		"ipv4/conf/all/accept_redirects=0", "ipv4/conf/default/accept_redirects=0",
		"ipv4/ip_local_port_range=1024 65535", "ipv4/tcp_tw_reuse=1", // thousands of new connections a second
		"ipv4/conf/all/arp_ignore=1", "bridge/bridge-nf-call-iptables=0")
	if err != nil {
		return err
	}
	return ipBatch(ctx, f.netns(host), "link set lo up")
}

// addSwitch connects the nodes and the client to the switch.
func (f *fabric) addSwitch(ctx context.Context) error {
	if err := ipBatch(ctx, f.netns(switchHost),
		"link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set br0 up"); err != nil {
		return err
	}
	attach := func(host string, addr netip.Addr) error {
		if err := ipBatch(ctx, "", fmt.Sprintf("link add %s netns %s mtu %d type veth peer name %s netns %s",
			uplink, f.netns(host), underlayMTU, host, f.netns(switchHost))); err != nil {
			return err
		}
		if err := ipBatch(ctx, f.netns(switchHost), fmt.Sprintf("link set %s master br0 up", host)); err != nil {
			return err
		}
		return ipBatch(ctx, f.netns(host), fmt.Sprintf("addr add %s/24 dev %s", addr, uplink), "link set "+uplink+" up")
	}
	for i := 1; i <= nodeCount; i++ {
		if err := attach(nodeHost(i), nodeAddr(i)); err != nil {
			return err
		}
		if err := setSysctls(f.netns(nodeHost(i)), "ipv4/ip_forward=1"); err != nil {
			return err
		}
	}
	return attach(clientHost, clientAddr)
}

// addWorkload puts workload i behind node i: one address, no subnet, a gateway
// that is only a neighbour entry.
func (f *fabric) addWorkload(ctx context.Context, i, mtu int) error {
	node, workload := f.netns(nodeHost(i)), f.netns(workloadHost(i))
	if err := ipBatch(ctx, "", fmt.Sprintf("link add %s netns %s address %s mtu %d type veth peer name %s netns %s address %s mtu %d",
		uplink, workload, endpointMAC(workloadAddr(i)), mtu, taskDevice, node, endpointMAC(gateway), mtu)); err != nil {
		return err
	}
	if err := ipBatch(ctx, node, "link set "+taskDevice+" up",
		fmt.Sprintf("neigh add %s lladdr %s dev %s nud permanent", workloadAddr(i), endpointMAC(workloadAddr(i)), taskDevice),
		fmt.Sprintf("route add %s/32 dev %s", workloadAddr(i), taskDevice)); err != nil {
		return err
	}
	return ipBatch(ctx, workload, fmt.Sprintf("addr add %s/32 dev %s", workloadAddr(i), uplink), "link set "+uplink+" up",
		fmt.Sprintf("neigh add %s lladdr %s dev %s nud permanent", gateway, endpointMAC(gateway), uplink),
		fmt.Sprintf("route add default via %s dev %s onlink", gateway, uplink))
}

// addRoute sends host's packets for dst through the node via.
func (f *fabric) addRoute(ctx context.Context, host string, dst, via netip.Addr) error {
	return ipBatch(ctx, f.netns(host), fmt.Sprintf("route add %s/32 via %s dev %s", dst, via, uplink))
}

// file writes a program's configuration into the fabric's directory.
func (f *fabric) file(name, content string) (string, error) {
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		return "", fmt.Errorf("write %s: %w", name, err)
	}
	return path, nil
}

// start runs a program in host's namespace until the fabric is closed.
func (f *fabric) start(host string, cmd *exec.Cmd) error {
	log, err := os.Create(filepath.Join(f.dir, fmt.Sprintf("%s-%s.log", host, filepath.Base(cmd.Path))))
	if err != nil {
		return fmt.Errorf("make log file: %w", err)
	}
	defer log.Close() // the program has its own descriptor
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	if err := startIn(f.netns(host), cmd); err != nil {
		return err
	}
	f.procs = append(f.procs, cmd)
	return nil
}

// logs returns the end of what the fabric's programs printed.
func (f *fabric) logs() string {
	var all strings.Builder
	paths, _ := filepath.Glob(filepath.Join(f.dir, "*.log"))
	for _, path := range paths {
		if content, _ := os.ReadFile(path); len(content) > 0 {
			fmt.Fprintf(&all, "\n%s: %s", filepath.Base(path), tail(string(content)))
		}
	}
	return all.String()
}

// close stops the programs and removes the namespaces and files.
func (f *fabric) close() error {
	var errs []error
	for _, c := range f.closers {
		errs = append(errs, c())
	}
	for _, cmd := range f.procs {
		_ = cmd.Process.Kill() // fails only if it has ended already
		_ = cmd.Wait()         // says that it was killed
	}
	for _, host := range f.hosts {
		if _, err := os.Stat(filepath.Join(netnsDir, f.netns(host))); err != nil {
			continue // building stopped before it
		}
		if out, err := exec.Command("ip", "netns", "del", f.netns(host)).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("delete network namespace %s: %w: %s", f.netns(host), err, tail(string(out))))
		}
	}
	if f.dir != "" {
		errs = append(errs, os.RemoveAll(f.dir))
	}
	return errors.Join(errs...)
}
