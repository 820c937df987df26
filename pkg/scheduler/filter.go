package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

const billion = 1_000_000_000

// verdict says why a node cannot run a task; nil where it can. It reads
// after a number of nodes: "1 not ready", "2 do not satisfy node.role==worker".
type verdict struct {
	filter    int // in the order in which filters are asked
	one, many string
}

func same(filter int, text string) *verdict { return &verdict{filter, text, text} }

// sentence is the verdict as it reads after one node's name.
func (v *verdict) sentence() string {
	if strings.HasPrefix(v.one, "does ") || strings.HasPrefix(v.one, "could ") || strings.HasPrefix(v.one, "has ") {
		return v.one
	}
	return "is " + v.one
}

// Filters, in the order in which they are asked and reported.
const (
	filterReady = iota + 1
	filterAvailability
	filterConstraint
	filterPlatform
	filterPlugin
	filterEncryption
	filterImage
	filterVolume
	filterMaxReplicas
	filterHostPort
	filterResources
)

// filterNames are what people call the filters.
var filterNames = map[int]string{
	filterReady: "ready", filterAvailability: "availability", filterConstraint: "constraint", filterPlatform: "platform",
	filterPlugin: "plug-in", filterEncryption: "encryption", filterImage: "image", filterVolume: "volume", filterMaxReplicas: "max per node",
	filterHostPort: "host port", filterResources: "resources",
}

// lasting is the verdict of the filters that do not depend on what else is
// placed: it holds for all of a service's tasks that are made from one spec.
func (p *planner) lasting(svc *api.Service, spec *api.TaskSpec, i int) *verdict {
	n := p.nodes[i]
	switch {
	case n.State != api.NodeReady:
		return same(filterReady, "not ready")
	case n.Availability == api.AvailabilityPause:
		return same(filterAvailability, "paused")
	case n.Availability == api.AvailabilityDrain:
		return same(filterAvailability, "drained")
	}
	placement := &svc.Spec.Placement
	if unmet, is := placement.Unmet(n); is {
		return p.dissatisfied(unmet)
	}
	if len(placement.Platforms) > 0 && !slices.ContainsFunc(placement.Platforms, func(pl api.Platform) bool { return pl.Runs(n) }) {
		return same(filterPlatform, "not of a platform that the image is made for ("+joined(placement.Platforms)+")")
	}
	if made := spec.Pin.Platform; !made.Runs(n) {
		return same(filterPlatform, "not of the platform that the image is made for ("+made.String()+")")
	}
	if v := lackingDriver(n, spec); v != nil {
		return v
	}
	if n.LacksEncryption() != "" && svc.Spec.EncryptedNetwork(p.snap) != nil {
		return same(filterEncryption, "without WireGuard, which its encrypted network needs")
	}
	if p.imageless[spec.Image][i] {
		return same(filterImage, "could not get the image "+spec.Image+" a moment ago")
	}
	return nil
}

// dissatisfied is the verdict of a constraint, one for all nodes.
func (p *planner) dissatisfied(c api.Constraint) *verdict {
	v := p.unmet[c]
	if v == nil {
		v = &verdict{filterConstraint, "does not satisfy " + c.String(), "do not satisfy " + c.String()}
		p.unmet[c] = v
	}
	return v
}

func joined[T fmt.Stringer](list []T) string {
	var out []string
	for _, one := range list {
		out = append(out, one.String())
	}
	return strings.Join(out, ", ")
}

// lackingDriver looks for the drivers of a task's volumes and output among
// those that the node's engine has. A node that has not said which is trusted.
func lackingDriver(n *api.Node, spec *api.TaskSpec) *verdict {
	lacks := func(have []string, driver string) bool {
		return driver != "" && have != nil && !slices.Contains(have, driver)
	}
	for _, m := range spec.Mounts {
		if m.Type == api.MountVolume && lacks(n.Info.VolumeDrivers, m.Driver) {
			return same(filterPlugin, "without the volume driver "+m.Driver)
		}
	}
	if spec.Log != nil && lacks(n.Info.LogDrivers, spec.Log.Driver) {
		return same(filterPlugin, "without the log driver "+spec.Log.Driver)
	}
	return nil
}

// passing is the verdict of the filters that look at what is on the node.
func (p *planner) passing(svc *api.Service, shares []share, r *api.Resources, i int) *verdict {
	if most := svc.Spec.Placement.MaxReplicasPerNode; most > 0 && shares[i].staying >= most {
		return same(filterMaxReplicas, fmt.Sprintf("full with %d of this service", most))
	}
	l := &p.loads[i]
	for _, port := range svc.Spec.Ports {
		if port.Host && l.ports[hostPort{port.Published, port.Protocol}] > 0 {
			return same(filterHostPort, fmt.Sprintf("without a free port %d/%s", port.Published, port.Protocol))
		}
	}
	return lacking(p.nodes[i], &l.reserved, r)
}

// lacking compares what is reserved on a node with what it has. A node that has
// not said how many CPUs and how much memory it has is not limited.
func lacking(n *api.Node, reserved *amounts, r *api.Resources) *verdict {
	if r.NanoCPUs > 0 && n.Info.CPUs > 0 && reserved.cpus+r.NanoCPUs > int64(n.Info.CPUs)*billion {
		return same(filterResources, fmt.Sprintf("without %g CPUs to reserve", float64(r.NanoCPUs)/billion))
	}
	if r.MemoryBytes > 0 && n.Info.MemoryBytes > 0 && reserved.memory+r.MemoryBytes > n.Info.MemoryBytes {
		return same(filterResources, fmt.Sprintf("without %d MiB of memory to reserve", (r.MemoryBytes+1<<20-1)>>20))
	}
	for _, kind := range api.SortedKeys(r.Generic) {
		if reserved.generic[kind]+r.Generic[kind] > n.Info.Generic[kind] {
			return same(filterResources, fmt.Sprintf("without %d %s to reserve", r.Generic[kind], kind))
		}
	}
	return nil
}

const (
	unplaceableReason = "no suitable node: "
	waitingReason     = "waits for "
)

// Unplaceable reports whether a task waits because no node suits it, rather than
// for a delay or another service.
func Unplaceable(t *api.Task) bool {
	return t.Status.State == api.TaskPending && strings.HasPrefix(t.Reason, unplaceableReason)
}

// isOwnReason reports whether a task's reason is one that this package gave: it
// is void once the task is placed, where another goes on to tell why the task
// was made.
func isOwnReason(reason string) bool {
	return strings.HasPrefix(reason, unplaceableReason) || strings.HasPrefix(reason, waitingReason)
}
