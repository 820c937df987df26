package compose

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/orch-dev/orch/pkg/api"
)

func (c *converter) replicas(at string, in types.ServiceConfig, deploy *types.DeployConfig) (api.Mode, int) {
	given, where := deploy.Replicas, at+".deploy.replicas"
	if in.Scale != nil {
		if given != nil && *given != *in.Scale {
			c.failAt(at+".scale", fmt.Sprintf("scale is %d and deploy.replicas is %d", *in.Scale, *given), "give one of them")
		}
		given, where = in.Scale, at+".scale"
	}
	mode := api.Mode(deploy.Mode)
	if mode == "" {
		mode = api.ModeReplicated
	}
	if mode.Global() {
		if given != nil {
			c.failAt(where, "a "+deploy.Mode+" service runs once on every node; it has no number of replicas", "")
		}
		return mode, 0
	}
	switch {
	case given == nil:
		return mode, 1
	case *given < 0:
		c.failAt(where, fmt.Sprintf("%d is negative", *given), "")
	case *given > 10_000:
		c.failAt(where, fmt.Sprintf("%d is more than 10000", *given), "")
	}
	return mode, *given
}

// placement leaves out what the scan has found wrong with constraints.
func (c *converter) placement(at, platform string, in types.Placement) api.Placement {
	var out api.Placement
	if platform != "" {
		parts := strings.Split(platform, "/")
		if len(parts) > 3 || slices.Contains(parts, "") {
			c.failAt(at+".platform", fmt.Sprintf("%q is not a platform", platform), "write it like linux/arm64")
		}
		out.Platforms = []api.Platform{{OS: parts[0]}}
		if len(parts) > 1 {
			out.Platforms[0].Arch = parts[1]
		}
	}
	for _, text := range in.Constraints {
		if one, f := parseConstraint(text); f.verdict != refused {
			out.Constraints = append(out.Constraints, one)
		}
	}
	for _, p := range in.Preferences {
		if p.Spread != "" {
			out.Preferences = append(out.Preferences, p.Spread)
		}
	}
	out.MaxReplicasPerNode = int(min(in.MaxReplicas, math.MaxInt32))
	return out
}

// restart takes deploy.restart_policy, or what the older restart key says.
func (c *converter) restart(at, short string, in *types.RestartPolicy) api.RestartPolicy {
	out := api.RestartPolicy{Condition: api.RestartAny, Delay: defaultRestartDelay}
	if in == nil {
		c.shortRestart(at+".restart", short, &out)
		return out
	}
	if short != "" {
		c.warnAt(at+".restart", "deploy.restart_policy is given too, and is what counts", "remove one of them")
	}
	at += ".deploy.restart_policy"
	switch condition := api.RestartCondition(in.Condition); condition {
	case "":
	case api.RestartAny, api.RestartOnFailure, api.RestartNone:
		out.Condition = condition
	default:
		c.failAt(at+".condition", fmt.Sprintf("%q is not a condition", in.Condition), "use any, on-failure or none")
	}
	out.Delay = c.duration(at+".delay", in.Delay, defaultRestartDelay)
	out.Window = c.duration(at+".window", in.Window, 0)
	if in.MaxAttempts != nil {
		out.MaxAttempts = c.count(at+".max_attempts", *in.MaxAttempts)
	}
	return out
}

func (c *converter) shortRestart(at, short string, out *api.RestartPolicy) {
	condition, attempts, limited := strings.Cut(short, ":")
	switch condition {
	case "", types.RestartPolicyAlways, types.RestartPolicyUnlessStopped:
		limited = limited && condition != "" // nothing else takes a number
	case types.RestartPolicyNo:
		out.Condition = api.RestartNone
	case types.RestartPolicyOnFailure:
		out.Condition = api.RestartOnFailure
		if limited {
			n, err := strconv.ParseUint(attempts, 10, 64)
			if err == nil {
				out.MaxAttempts, limited = c.count(at, n), false
			}
		}
	default:
		limited = true
	}
	if limited {
		c.failAt(at, fmt.Sprintf("%q is not a restart policy", short), `use "no", always, unless-stopped, on-failure or on-failure:TIMES`)
	}
}

// limits come from deploy.resources.limits or from the older keys of the
// service; two different amounts for one resource are refused.
func (c *converter) limits(at string, in types.ServiceConfig, deploy *types.DeployConfig) api.Resources {
	var given types.Resource
	if deploy.Resources.Limits != nil {
		given = *deploy.Resources.Limits
	}
	below := at + ".deploy.resources.limits"
	return api.Resources{
		NanoCPUs:    c.oneOf(at+".cpus", nanoCPUs(in.CPUS), below+".cpus", nanoCPUs(given.NanoCPUs.Value())),
		MemoryBytes: c.oneOf(at+".mem_limit", int64(in.MemLimit), below+".memory", int64(given.MemoryBytes)),
		Pids:        c.oneOf(at+".pids_limit", max(in.PidsLimit, 0), below+".pids", max(given.Pids, 0)), // -1: no limit
	}
}

func (c *converter) reservations(at string, in types.ServiceConfig, deploy *types.DeployConfig) api.Resources {
	var given types.Resource
	if deploy.Resources.Reservations != nil {
		given = *deploy.Resources.Reservations
	}
	below := at + ".deploy.resources.reservations"
	return api.Resources{
		NanoCPUs:    c.oneOf("", 0, below+".cpus", nanoCPUs(given.NanoCPUs.Value())),
		MemoryBytes: c.oneOf(at+".mem_reservation", int64(in.MemReservation), below+".memory", int64(given.MemoryBytes)),
		Generic:     c.generic(below+".generic_resources", given.GenericResources),
	}
}

// generic are amounts of what the nodes' engines are said to have.
func (c *converter) generic(at string, in []types.GenericResource) map[string]int64 {
	var out map[string]int64
	for i, r := range in {
		at, d := fmt.Sprintf("%s[%d]", at, i), r.DiscreteResourceSpec
		if d == nil || d.Kind == "" || d.Value <= 0 {
			c.failAt(at, "it does not say how many of what", "write discrete_resource_spec: {kind: gpu, value: 1}")
			continue
		}
		if out == nil {
			out = map[string]int64{}
		}
		out[d.Kind] += d.Value
	}
	return out
}

// oneOf is the amount that is given, by the older key at oldAt or by the newer
// one at newAt.
func (c *converter) oneOf(oldAt string, old int64, newAt string, current int64) int64 {
	switch {
	case old < 0:
		c.failAt(oldAt, "the amount is negative", "")
	case current < 0:
		c.failAt(newAt, "the amount is negative", "")
	case old != 0 && current != 0 && old != current:
		c.failAt(oldAt, "deploy.resources gives a different amount", "remove one of them")
	}
	if current != 0 {
		return current
	}
	return old
}

// nanoCPUs rounds to millionths: compose-go has cpus in single precision.
func nanoCPUs(cpus float32) int64 {
	return int64(math.Round(float64(cpus)*1e6)) * 1000
}

func (c *converter) ports(at string, in []types.ServicePortConfig) []api.Port {
	var ports []api.Port
	for i, p := range in {
		at := c.portPlace(at, i, len(in))
		port := api.Port{Protocol: api.Protocol(strings.ToLower(p.Protocol)), Host: p.Mode == portOfHost}
		if port.Protocol != api.TCP && port.Protocol != api.UDP {
			c.failAt(at, fmt.Sprintf("the protocol %q cannot be published", p.Protocol), "use tcp or udp")
		}
		if p.Target == 0 || p.Target > math.MaxUint16 {
			c.failAt(at, fmt.Sprintf("the target %d is not a port", p.Target), "use 1 to 65535")
		}
		port.Target = uint16(p.Target)
		if p.Published != "" {
			n, err := strconv.ParseUint(p.Published, 10, 16)
			if err != nil {
				c.failAt(at, fmt.Sprintf("%q cannot be published", p.Published), "name one port, or leave it out and one is chosen")
			}
			port.Published = uint16(n)
		}
		if p.HostIP != "" {
			addr, err := netip.ParseAddr(p.HostIP)
			if err != nil {
				c.failAt(at, fmt.Sprintf("%q is not an IP address", p.HostIP), "")
			}
			if !addr.IsUnspecified() {
				port.HostIP = addr
			}
		}
		ports = append(ports, port)
	}
	return ports
}

// portPlace is the path of port i of n. A range becomes several ports, so the
// place of an item is only known when the file has as many items.
func (c *converter) portPlace(at string, i, n int) string {
	_, last := c.places[fmt.Sprintf("%s[%d]", at, n-1)]
	_, more := c.places[fmt.Sprintf("%s[%d]", at, n)]
	if !last || more {
		return at
	}
	return fmt.Sprintf("%s[%d]", at, i)
}

// publishedOnce refuses a stack that publishes one port twice.
func (c *converter) publishedOnce() {
	type key struct {
		port     uint16
		protocol api.Protocol
	}
	type owner struct {
		service string
		host    netip.Addr
		alone   bool
	}
	owners := map[key][]owner{}
	for _, s := range c.project.Services {
		for i, p := range s.Ports {
			if p.Published == 0 {
				continue
			}
			k := key{p.Published, p.Protocol}
			for _, o := range owners[k] {
				if p.Host && o.alone && o.service != s.Alias {
					continue // their tasks are on different nodes
				}
				if p.HostIP == o.host || !p.HostIP.IsValid() || !o.host.IsValid() {
					c.failAt(c.portPlace("services."+s.Alias+".ports", i, len(s.Ports)),
						fmt.Sprintf("port %d/%s is already published by %q", p.Published, p.Protocol, o.service), "")
					break
				}
			}
			owners[k] = append(owners[k], owner{s.Alias, p.HostIP, p.Host})
		}
	}
}
