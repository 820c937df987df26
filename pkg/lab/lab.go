// Package lab makes a cluster of several nodes on one machine, for trying orch
// out and for its end-to-end tests. Each node is a network namespace with an
// orch daemon of its own; a switch namespace joins them, and a client namespace
// stands for everything outside the cluster. All nodes share the machine's
// Docker Engine.
//
// All that a lab makes is found again by the lab's name alone: namespaces,
// processes, labelled containers and volumes, pinned programs and files. So a
// lab can be removed whatever state it was left in.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// Where labs keep their things; below each, a directory per lab.
const (
	stateRoot = "/var/lib/orch-lab"
	runRoot   = "/run/orch-lab"
	pinRoot   = "/sys/fs/bpf/orch-lab"
	netnsRoot = "/run/netns"
)

// The labels that the daemon of a lab puts on its containers and volumes.
const (
	labelLab  = "orch.lab"
	labelNode = "orch.lab-node"
)

// ClientName names the namespace outside the cluster.
const ClientName = "client"

const switchName = "sw"

// Underlay addresses. They live in namespaces, so every lab has the same.
var (
	underlay = netip.MustParsePrefix("10.201.0.0/24")

	// ClientAddr is the client's address, and the nodes' default gateway.
	ClientAddr = netip.MustParseAddr("10.201.0.100")

	// OutsideAddr is one more address of the client, which the nodes reach
	// only by their default route: the world outside.
	OutsideAddr = netip.MustParseAddr("198.51.100.1")

	underlay6    = netip.MustParsePrefix("2001:db8:201::/64")
	OutsideAddr6 = netip.MustParseAddr("2001:db8:100::1")
)

// Addr6 is the IPv6 address that a node, or the client, has beside the one on
// the underlay, which the nodes speak to each other by.
func Addr6(addr netip.Addr) netip.Addr {
	six, four := underlay6.Addr().As16(), addr.As4()
	copy(six[12:], four[:])
	return netip.AddrFrom16(six)
}

const defaultName = "lab"

// maxNodes keeps node addresses below the client's.
const maxNodes = 80

// Datapath says how the nodes' eBPF programs are attached to their uplinks.
type Datapath string

const (
	DatapathAuto Datapath = "auto" // as the daemon chooses, which is tc on a veth
	DatapathXDP  Datapath = "xdp"
	DatapathTC   Datapath = "tc"
)

// Options say what lab to make. The zero value is the default lab.
type Options struct {
	// Name of the lab, "lab" by default: lower-case letters, digits, hyphens.
	Name string `json:"name"`
	// Nodes in all, 3 by default.
	Nodes int `json:"nodes"`
	// Managers among them, the first ones; by default three, or all if there
	// are fewer nodes.
	Managers int      `json:"managers"`
	Datapath Datapath `json:"datapath"`
	// MTU of the underlay in bytes, 1500 by default.
	MTU int `json:"mtu"`
	// Lease is how long a node may be silent before its tasks are replaced, the
	// daemon's default if it is 0.
	Lease time.Duration `json:"lease,omitempty"`
	// Engines are the sockets, unix://PATH, of the Docker Engines of nodes that do
	// not use the machine's, by the node's name.
	Engines map[string]string `json:"engines,omitempty"`
	// Binary is the orch program that the nodes run, by default this one.
	Binary string `json:"binary"`
}

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// complete fills in defaults and checks the rest.
func (o Options) complete(self string) (Options, error) {
	if o.Name == "" {
		o.Name = defaultName
	}
	if err := checkName(o.Name); err != nil {
		return o, err
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return o, fmt.Errorf("%d nodes: a lab has 1 to %d", o.Nodes, maxNodes)
	}
	if o.Managers == 0 {
		o.Managers = min(3, o.Nodes)
	}
	if o.Managers < 1 || o.Managers > o.Nodes {
		return o, fmt.Errorf("%d managers: a lab of %d nodes has 1 to %d", o.Managers, o.Nodes, o.Nodes)
	}
	switch o.Datapath {
	case "":
		o.Datapath = DatapathAuto
	case DatapathAuto, DatapathXDP, DatapathTC:
	default:
		return o, fmt.Errorf("datapath %q: want auto, xdp or tc", o.Datapath)
	}
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.MTU < 576+api.OverlayOverhead || o.MTU > 65535 {
		return o, fmt.Errorf("mtu %d: want %d to 65535", o.MTU, 576+api.OverlayOverhead)
	}
	if o.Binary == "" {
		o.Binary = self
	}
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return o, fmt.Errorf("find orch program %s: %w", o.Binary, err)
	}
	o.Binary = binary
	return o, nil
}

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("lab name %q: want lower-case letters, digits and hyphens, at most 32", name)
	}
	return nil
}

// ErrNotFound means that there is no lab of that name.
var ErrNotFound = errors.New("no such lab")

// Lab is a lab that is up.
type Lab struct {
	options Options
	nodes   []*Node
}

// Node is one node of a lab. All fields are fixed when the lab is made.
type Node struct {
	Name    string // n1, n2, ...
	Addr    netip.Addr
	Manager bool
	// NetNS is the path of the node's network namespace.
	NetNS string
	// Socket is the path of the daemon's API socket.
	Socket                   string
	StateDir, RunDir, PinDir string
	logFile, resolvFile      string
}

func newLab(o Options) *Lab {
	l := &Lab{options: o}
	for i := range o.Nodes {
		l.nodes = append(l.nodes, newNode(o, i))
	}
	return l
}

func newNode(o Options, i int) *Node {
	name := "n" + strconv.Itoa(i+1)
	addr := underlay.Addr().As4()
	addr[3] = byte(11 + i)
	n := &Node{
		Name: name, Addr: netip.AddrFrom4(addr), Manager: i < o.Managers,
		StateDir: filepath.Join(stateRoot, o.Name, name),
		RunDir:   filepath.Join(runRoot, o.Name, name),
		PinDir:   filepath.Join(pinRoot, o.Name, name),
	}
	n.NetNS = filepath.Join(netnsRoot, namespaceName(o.Name, name))
	n.Socket = filepath.Join(n.RunDir, "orch.sock")
	n.logFile = filepath.Join(n.StateDir, "daemon.log")
	n.resolvFile = filepath.Join(n.StateDir, "resolv.conf")
	return n
}

// namespaceName is unambiguous although names may have hyphens, because the
// last word is always one of sw, client and n1, n2, ...
func namespaceName(lab, member string) string { return "orch-" + lab + "-" + member }

// NamespaceName is what the ip command calls the namespace of a node or the
// client.
func (l *Lab) NamespaceName(member string) string { return namespaceName(l.options.Name, member) }

func (l *Lab) namespacePath(member string) string {
	return filepath.Join(netnsRoot, l.NamespaceName(member))
}

// Options returns how the lab was made, defaults filled in.
func (l *Lab) Options() Options { return l.options }

// Nodes returns the lab's nodes in order.
func (l *Lab) Nodes() []*Node { return l.nodes }

// Node returns node i, counted from 1 as in its name.
func (l *Lab) Node(i int) *Node { return l.nodes[i-1] }

// Find returns the node of that name.
func (l *Lab) Find(name string) (*Node, error) {
	for _, n := range l.nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return nil, fmt.Errorf("lab %s has no node %q: it has n1 to n%d", l.options.Name, name, len(l.nodes))
}

// Namespace returns the path of the network namespace of a node or the client.
func (l *Lab) Namespace(member string) (string, error) {
	if member == ClientName {
		return l.namespacePath(ClientName), nil
	}
	n, err := l.Find(member)
	if err != nil {
		return "", fmt.Errorf("%w, and client", err)
	}
	return n.NetNS, nil
}

// Host is the node's API as the CLI's --host takes it.
func (n *Node) Host() string { return "unix://" + n.Socket }

// Log is the path of the daemon's log.
func (n *Node) Log() string { return n.logFile }
