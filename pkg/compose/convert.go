package compose

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/orch-dev/orch/pkg/api"
)

// Defaults are Swarm's, which users of compose files with a deploy section know.
const (
	defaultStopGrace    = 10 * time.Second
	defaultRestartDelay = 5 * time.Second
)

// converter makes specs of a loaded model. What it finds wrong goes to scan.
type converter struct {
	*scan
	stack   string
	dir     string
	model   *types.Project
	project *Project
}

func (c *converter) convert() {
	if len(c.model.Services) == 0 && len(c.model.DisabledServices) == 0 {
		c.failAt("services", noServices, "")
	}
	for _, name := range slices.Sorted(maps.Keys(c.model.DisabledServices)) {
		profiles := c.model.DisabledServices[name].Profiles
		c.warnAt("services."+name, "not deployed: its profile "+strings.Join(profiles, ", ")+" is not enabled",
			"enable it with --profile or COMPOSE_PROFILES")
	}
	for _, name := range slices.Sorted(maps.Keys(c.model.Services)) {
		c.project.Services = append(c.project.Services, c.service(name, c.model.Services[name]))
	}
	c.networks()
	c.volumes()
	c.files()
	c.publishedOnce()
	c.cycles()
}

func (c *converter) service(name string, in types.ServiceConfig) api.ServiceSpec {
	at := "services." + name
	image := c.build(at, name, in)
	deploy := in.Deploy
	if deploy == nil {
		deploy = &types.DeployConfig{}
	}
	spec := api.ServiceSpec{
		Name:     c.stack + "_" + name,
		Alias:    name,
		Labels:   plain(deploy.Labels),
		Networks: c.serviceNetworks(at, in.Networks),

		NetworkAliases: c.aliases(at, name, in),
		EndpointMode:   endpointMode(deploy.EndpointMode),

		Ports:     c.ports(at+".ports", in.Ports),
		Placement: c.placement(at, in.Platform, deploy.Placement),
		Update:    c.updateRules(at+".deploy.update_config", deploy.UpdateConfig),
		Restart:   c.restart(at, in.Restart, deploy.RestartPolicy),
		DependsOn: c.dependsOn(at+".depends_on", in.DependsOn),
		Task: api.TaskSpec{
			Image:        image,
			Entrypoint:   in.Entrypoint,
			Command:      in.Command,
			Env:          c.environment(at, in.Environment),
			User:         in.User,
			WorkingDir:   in.WorkingDir,
			Hostname:     in.Hostname,
			Labels:       plain(in.Labels),
			Mounts:       c.mounts(at, in),
			Health:       c.health(at+".healthcheck", in.HealthCheck),
			Limits:       c.limits(at, in, deploy),
			Reservations: c.reservations(at, in, deploy),
			Init:         in.Init != nil && *in.Init,
			ReadOnly:     in.ReadOnly,
			CapAdd:       in.CapAdd,
			CapDrop:      in.CapDrop,
			Log:          logging(in.Logging),
			Container:    c.container(at, in, deploy),
			StopSignal:   in.StopSignal,
			StopGrace:    c.duration(at+".stop_grace_period", in.StopGracePeriod, defaultStopGrace),
		},
	}
	c.links(at, in)
	c.swap(at+".memswap_limit", &spec.Task)
	spec.Task.Files = c.serviceFiles(at, in, spec.Task.Mounts)
	spec.Rollback = c.rollbackRules(at+".deploy.rollback_config", deploy.RollbackConfig, spec.Update)
	spec.Mode, spec.Replicas = c.replicas(at, in, deploy)
	c.extension(at+".x-orch", in.Extensions["x-orch"], &spec)
	return spec
}

// plain is m without compose-go's type, nil if it is empty.
func plain(m types.Labels) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return map[string]string(m)
}

func (c *converter) environment(at string, in types.MappingWithEquals) []string {
	var env []string
	for _, key := range slices.Sorted(maps.Keys(in)) {
		switch value := in[key]; {
		case value == nil:
			c.warnAt(at+".environment."+key, key+" is left out: it has no value here and is not set where orch runs", "")
		default:
			env = append(env, key+"="+*value)
		}
	}
	return env
}

// duration is the one given, or def if none is.
func (c *converter) duration(at string, d *types.Duration, def time.Duration) time.Duration {
	switch {
	case d == nil:
		return def
	case *d < 0:
		c.failAt(at, fmt.Sprintf("%s is negative", time.Duration(*d)), "")
	}
	return time.Duration(*d)
}

func (c *converter) health(at string, in *types.HealthCheckConfig) *api.Healthcheck {
	if in == nil {
		return nil
	}
	if in.Disable {
		return &api.Healthcheck{Test: []string{"NONE"}}
	}
	h := &api.Healthcheck{
		Test:        in.Test,
		Interval:    c.duration(at+".interval", in.Interval, 0),
		Timeout:     c.duration(at+".timeout", in.Timeout, 0),
		StartPeriod: c.duration(at+".start_period", in.StartPeriod, 0),

		StartInterval: c.duration(at+".start_interval", in.StartInterval, 0),
	}
	if in.Retries != nil {
		h.Retries = c.count(at+".retries", *in.Retries)
	}
	if len(h.Test) == 0 {
		return h // the image's test, with other timing
	}
	switch rest := len(h.Test) - 1; h.Test[0] {
	case "NONE":
	case "CMD":
		if rest == 0 {
			c.failAt(at+".test", "CMD is followed by no command", "")
		}
	case "CMD-SHELL":
		if rest != 1 {
			c.failAt(at+".test", "CMD-SHELL is followed by one command line", "")
		}
	default:
		c.failAt(at+".test", "the first item has to be CMD, CMD-SHELL or NONE", fmt.Sprintf(`did you mean ["CMD", %q, ...]?`, h.Test[0]))
	}
	return h
}

// count is n as an int; what does not fit a sensible one is refused.
func (c *converter) count(at string, n uint64) int {
	const most = 1 << 20
	if n > most {
		c.failAt(at, fmt.Sprintf("%d is more than %d", n, most), "")
		return 0
	}
	return int(n)
}

func (c *converter) dependsOn(at string, in types.DependsOnConfig) []api.Dependency {
	var list []api.Dependency
	for _, name := range slices.Sorted(maps.Keys(in)) {
		on, known := c.model.Services[name]
		if !known {
			_, disabled := c.model.DisabledServices[name]
			switch {
			case !in[name].Required:
				c.warnAt(at+"."+name, fmt.Sprintf("there is no service %q in this deploy; not waited for", name), "")
			case disabled:
				c.failAt(at+"."+name, fmt.Sprintf("the service %q is not deployed: its profile is not enabled", name), "enable it with --profile or COMPOSE_PROFILES")
			default:
				c.failAt(at+"."+name, fmt.Sprintf("there is no service %q", name), c.nearestService(name))
			}
			continue
		}
		condition := api.DependencyCondition(in[name].Condition)
		if condition == api.DependencyCompleted && restartsAfterSuccess(on) {
			c.warnAt(at+"."+name, fmt.Sprintf("%q is started again whenever it ends", name),
				fmt.Sprintf(`set services.%s.deploy.restart_policy.condition to "on-failure"`, name))
		}
		list = append(list, api.Dependency{Service: c.stack + "_" + name, Condition: condition})
	}
	return list
}

func (c *converter) nearestService(name string) string {
	for _, other := range slices.Sorted(maps.Keys(c.model.Services)) {
		if editDistance(name, other) <= max(1, len(name)/3) {
			return `did you mean "` + other + `"?`
		}
	}
	return ""
}

func restartsAfterSuccess(s types.ServiceConfig) bool {
	if s.Deploy != nil && api.Mode(s.Deploy.Mode).Job() {
		return false
	}
	if s.Deploy != nil && s.Deploy.RestartPolicy != nil {
		condition := s.Deploy.RestartPolicy.Condition
		return condition == "" || condition == string(api.RestartAny)
	}
	return s.Restart == "" || s.Restart == types.RestartPolicyAlways || s.Restart == types.RestartPolicyUnlessStopped
}

// cycles refuses services that wait for each other, naming one round.
func (c *converter) cycles() {
	const (
		entered = 1
		left    = 2
	)
	state := map[string]int{}
	var trail []string
	var visit func(name string) bool
	visit = func(name string) bool {
		if state[name] == entered {
			round := append(trail[slices.Index(trail, name):], name)
			c.failAt("services."+name+".depends_on", "services wait for each other: "+strings.Join(round, " -> "), "")
			return false
		}
		if state[name] == left {
			return true
		}
		state[name] = entered
		trail = append(trail, name)
		for _, on := range slices.Sorted(maps.Keys(c.model.Services[name].DependsOn)) {
			if _, ok := c.model.Services[on]; ok && !visit(on) {
				return false
			}
		}
		state[name], trail = left, trail[:len(trail)-1]
		return true
	}
	for _, name := range slices.Sorted(maps.Keys(c.model.Services)) {
		if !visit(name) {
			return
		}
	}
}

func (c *converter) mounts(at string, in types.ServiceConfig) []api.Mount {
	var mounts []api.Mount
	taken := map[string]bool{}
	add := func(at string, m api.Mount) {
		switch {
		case !path.IsAbs(m.Target):
			c.failAt(at, fmt.Sprintf("%q is not an absolute path in the container", m.Target), "")
		case taken[m.Target]:
			c.failAt(at, "something else is mounted on "+m.Target+" too", "")
		}
		taken[m.Target] = true
		mounts = append(mounts, m)
	}
	for i, v := range in.Volumes {
		at := fmt.Sprintf("%s.volumes[%d]", at, i)
		m := api.Mount{Type: api.MountType(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly}
		switch m.Type {
		case api.MountVolume:
			if v.Source == "" {
				break // a volume without a name, the task's own
			}
			if _, ok := c.model.Volumes[v.Source]; !ok {
				c.failAt(at, fmt.Sprintf("there is no volume %q", v.Source), "declare it under volumes at the top level")
			}
			setVolume(&m, c.model.Volumes[v.Source], v.Volume)
		case api.MountBind:
			if !path.IsAbs(v.Source) {
				c.failAt(at, fmt.Sprintf("%q is not a path on the node", v.Source), "")
			}
			if v.Bind != nil {
				m.Propagation = v.Bind.Propagation
			}
		}
		if m.Type == api.MountTmpfs && v.Tmpfs != nil {
			m.SizeBytes, m.Mode = int64(v.Tmpfs.Size), v.Tmpfs.Mode
		}
		add(at, m)
	}
	for i, t := range in.Tmpfs {
		at := fmt.Sprintf("%s.tmpfs[%d]", at, i)
		add(at, c.tmpfs(at, t))
	}
	return mounts
}

// networkFileSystems are types of volumes of the local driver that are the same on
// every node.
var networkFileSystems = []string{"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs"}

// setVolume makes m be a mount of the volume declared as v.
func setVolume(m *api.Mount, v types.VolumeConfig, use *types.ServiceVolumeVolume) {
	m.Source = v.Name
	if !v.External {
		m.Driver, m.DriverOptions, m.Labels = v.Driver, plain(types.Labels(v.DriverOpts)), plain(v.Labels)
		m.Shared = (v.Driver == "" || v.Driver == "local") && slices.Contains(networkFileSystems, v.DriverOpts["type"])
	}
	if use != nil {
		m.NoCopy, m.Subpath = use.NoCopy, use.Subpath
	}
}

func (c *converter) serviceNetworks(at string, in map[string]*types.ServiceNetworkConfig) []string {
	var names []string
	for _, key := range slices.Sorted(maps.Keys(in)) {
		network, ok := c.model.Networks[key]
		if !ok {
			c.failAt(at+".networks."+key, fmt.Sprintf("there is no network %q", key), "declare it under networks at the top level")
			continue
		}
		names = append(names, network.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// endpointMode leaves the default out, so that saying it changes nothing.
func endpointMode(mode string) api.EndpointMode {
	if api.EndpointMode(mode) == api.EndpointVIP {
		return ""
	}
	return api.EndpointMode(mode)
}

// networks lists those that services use, and tells of the others.
func (c *converter) networks() {
	used := map[string]bool{}
	for _, s := range c.project.Services {
		for _, name := range s.Networks {
			used[name] = true
		}
	}
	byName := map[string]NetworkSpec{}
	for _, key := range slices.Sorted(maps.Keys(c.model.Networks)) {
		n := c.model.Networks[key]
		if !used[n.Name] {
			c.warnAt("networks."+key, "no service uses it; it is not made", "")
			continue
		}
		byName[n.Name] = NetworkSpec{Name: n.Name, Internal: n.Internal, Encrypted: isEncrypted(n.DriverOpts), External: bool(n.External)}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		c.project.Networks = append(c.project.Networks, byName[name])
	}
}

// isEncrypted is how Docker reads the option: an empty value turns it on.
func isEncrypted(options map[string]string) bool {
	value, there := options["encrypted"]
	on, err := strconv.ParseBool(value)
	return there && (value == "" || err == nil && on)
}

func (c *converter) volumes() {
	used := map[string]bool{}
	for _, s := range c.project.Services {
		for _, m := range s.Task.Mounts {
			used[m.Source] = used[m.Source] || m.Type == api.MountVolume
		}
	}
	byName := map[string]VolumeSpec{}
	for _, key := range slices.Sorted(maps.Keys(c.model.Volumes)) {
		v := c.model.Volumes[key]
		if !used[v.Name] {
			c.warnAt("volumes."+key, "no service uses it; it is not made", "")
			continue
		}
		byName[v.Name] = VolumeSpec{Name: v.Name, External: bool(v.External)}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		c.project.Volumes = append(c.project.Volumes, byName[name])
	}
}
