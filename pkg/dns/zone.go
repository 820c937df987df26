// Package dns is the name server of a node: tasks find services and each other
// by name, on the networks they share and on no other.
//
// What it knows is a Zone, computed elsewhere and replaced as a whole; what it
// does not know, and what is not inside the cluster, it asks the servers that
// the node itself uses.
package dns

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Zone is all that the server of one node knows. It is never changed: a new one
// takes its place. Networks are named by their numbers.
type Zone struct {
	// Clients are the tasks of this node, by address, with their networks in
	// order of preference: a name that is on several is taken from the first.
	Clients map[netip.Addr][]uint32
	// Inside are the clients that have no way out of the cluster: names outside
	// of it do not exist for them.
	Inside map[netip.Addr]bool
	// Upstreams are the servers, ADDRESS:PORT, that names outside the cluster are
	// asked of for a client, if not those of the node.
	Upstreams map[netip.Addr][]string
	// Names are each network's names, lower case and without a final dot, with
	// IPv4 addresses: a service's names (web, blog_web) with its virtual IP, and
	// the same after "tasks." with the addresses of its ready tasks. A name may
	// have no address at the moment and still exist.
	Names map[uint32]map[string][]netip.Addr
}

// tasksPrefix is before the name of a service where its tasks are meant.
const tasksPrefix = "tasks."

// lookup finds name on the networks, the first that has it.
func (z *Zone) lookup(networks []uint32, name string) (addrs []netip.Addr, found bool) {
	for _, n := range networks {
		if addrs, found = z.Names[n][name]; found {
			return addrs, true
		}
	}
	return nil, false
}

// all are the numbers of the networks that have names, ascending.
func (z *Zone) all() []uint32 {
	return slices.Sorted(maps.Keys(z.Names))
}

// ours reports whether a name can only be one of the cluster's: a single label,
// or one after "tasks.". Such a name is never asked of another server.
func ours(name string) bool {
	return name != "" && !strings.Contains(strings.TrimPrefix(name, tasksPrefix), ".")
}
