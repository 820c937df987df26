package compose

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/orch-dev/orch/pkg/api"
)

// container is what a service says about its containers that goes to the engine
// as it is, nil if there is nothing of that.
func (c *converter) container(at string, in types.ServiceConfig, deploy *types.DeployConfig) *api.ContainerOptions {
	if in.OomScoreAdj < -1000 || in.OomScoreAdj > 1000 {
		c.failAt(at+".oom_score_adj", fmt.Sprintf("%d is not between -1000 and 1000", in.OomScoreAdj), "")
	}
	options := api.ContainerOptions{
		Annotations:       plain(types.Labels(in.Annotations)),
		Domainname:        in.DomainName,
		GroupAdd:          in.GroupAdd,
		TTY:               in.Tty,
		StdinOpen:         in.StdinOpen,
		ExtraHosts:        c.extraHosts(at+".extra_hosts", in.ExtraHosts),
		DNS:               c.nameServers(at+".dns", in.DNS),
		DNSSearch:         in.DNSSearch,
		DNSOptions:        in.DNSOpts,
		Privileged:        in.Privileged,
		SecurityOpt:       c.securityOptions(at+".security_opt", in.SecurityOpt),
		UsernsMode:        in.UserNSMode,
		PidMode:           in.Pid,
		IPCMode:           in.Ipc,
		CgroupMode:        in.Cgroup,
		Runtime:           in.Runtime,
		Devices:           devices(in.Devices),
		DeviceRequests:    deviceRequests(in.Gpus, deploy),
		DeviceCgroupRules: in.DeviceCgroupRules,
		Sysctls:           plain(types.Labels(in.Sysctls)),
		Ulimits:           ulimits(in.Ulimits),
		StorageOpt:        in.StorageOpt,
		ShmBytes:          int64(in.ShmSize),
		MemorySwapBytes:   int64(in.MemSwapLimit),
		OOMScoreAdj:       int(in.OomScoreAdj),
		CPUShares:         in.CPUShares,
		CPUSet:            in.CPUSet,
	}
	if reflect.ValueOf(options).IsZero() {
		return nil
	}
	return &options
}

func (c *converter) extraHosts(at string, in types.HostsList) []api.HostEntry {
	var list []api.HostEntry
	for _, name := range slices.Sorted(maps.Keys(in)) {
		for _, text := range in[name] {
			addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
			switch {
			case text == "host-gateway":
				c.failAt(at, "tasks have no way to their node by the name "+name, "give the node's address, or deploy what is there as a service")
			case err != nil:
				c.failAt(at, fmt.Sprintf("%q, of %s, is not an IP address", text, name), "write it like name:192.0.2.1")
			}
			list = append(list, api.HostEntry{Name: name, Addr: addr})
		}
	}
	return list
}

func (c *converter) nameServers(at string, in []string) []netip.Addr {
	var list []netip.Addr
	for _, text := range in {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			c.failAt(at, fmt.Sprintf("%q is not an IP address", text), "")
		}
		list = append(list, addr)
	}
	return list
}

func devices(in []types.DeviceMapping) []api.Device {
	var list []api.Device
	for _, d := range in {
		list = append(list, api.Device{Source: d.Source, Target: d.Target, Permissions: d.Permissions})
	}
	return list
}

// deviceRequests are those of gpus and of the reservations.
func deviceRequests(gpus []types.DeviceRequest, deploy *types.DeployConfig) []api.DeviceRequest {
	var list []api.DeviceRequest
	for _, r := range gpus {
		r.Capabilities = append(r.Capabilities, "gpu")
		list = append(list, deviceRequest(r))
	}
	if deploy.Resources.Reservations != nil {
		for _, r := range deploy.Resources.Reservations.Devices {
			list = append(list, deviceRequest(r))
		}
	}
	return list
}

func deviceRequest(in types.DeviceRequest) api.DeviceRequest {
	out := api.DeviceRequest{Driver: in.Driver, Count: int(in.Count), IDs: in.IDs, Capabilities: in.Capabilities, Options: plain(types.Labels(in.Options))}
	if out.Count == 0 && len(out.IDs) == 0 {
		out.Count = -1 // all, as docker compose has it
	}
	return out
}

func ulimits(in map[string]*types.UlimitsConfig) []api.Ulimit {
	var list []api.Ulimit
	for _, name := range slices.Sorted(maps.Keys(in)) {
		u := api.Ulimit{Name: name, Soft: int64(in[name].Soft), Hard: int64(in[name].Hard)}
		if in[name].Single != 0 {
			u.Soft, u.Hard = int64(in[name].Single), int64(in[name].Single)
		}
		list = append(list, u)
	}
	return list
}

// swap refuses what the engine would refuse on the node.
func (c *converter) swap(at string, t *api.TaskSpec) {
	switch swap, memory := t.Options().MemorySwapBytes, t.Limits.MemoryBytes; {
	case swap > 0 && memory == 0:
		c.failAt(at, "it is for memory and swap together, and the memory is not limited", "set deploy.resources.limits.memory")
	case swap > 0 && swap < memory:
		c.failAt(at, "it is for memory and swap together, and less than the limit of memory", "")
	}
}

func logging(in *types.LoggingConfig) *api.LogConfig {
	if in == nil {
		return nil
	}
	return &api.LogConfig{Driver: in.Driver, Options: plain(types.Labels(in.Options))}
}

// securityOptions are written as the engine takes them. A profile for seccomp is a
// file beside the compose file; what is in it goes to the nodes.
func (c *converter) securityOptions(at string, in []string) []string {
	const maxProfile = 1 << 20
	var list []string
	for i, text := range in {
		at := fmt.Sprintf("%s[%d]", at, i)
		key, value, _ := strings.Cut(text, "=")
		if !strings.Contains(text, "=") { // the older form
			key, value, _ = strings.Cut(text, ":")
		}
		switch key {
		case "no-new-privileges", "label", "apparmor":
		case "seccomp":
			if value == "unconfined" || value == "builtin" {
				break
			}
			profile, err := readFile(value, c.dir, maxProfile)
			if err != nil {
				c.failAt(at, cannotRead(value, c.dir, err), "")
			}
			value = string(profile)
		default:
			c.failAt(at, fmt.Sprintf("there is no security option %q", key), "use no-new-privileges, label, apparmor or seccomp")
		}
		if value != "" {
			key += "=" + value
		}
		list = append(list, key)
	}
	return list
}

// checkHostMode takes the modes of a namespace that need no other container.
func checkHostMode(modes ...string) func(string) finding {
	return func(value string) finding {
		if slices.Contains(modes, value) {
			return finding{}
		}
		return refuse(fmt.Sprintf("%q would share it with another container, and tasks may be on different nodes", value), "use "+strings.Join(modes, " or "))
	}
}

// tmpfs reads an entry of the tmpfs key, PATH:OPTION,...
func (c *converter) tmpfs(at, text string) api.Mount {
	target, options, _ := strings.Cut(text, ":")
	m := api.Mount{Type: api.MountTmpfs, Target: path.Clean(target)}
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "size":
			var size types.UnitBytes
			err = size.DecodeMapstructure(value)
			m.SizeBytes = int64(size)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 32)
			m.Mode = uint32(mode)
		case "ro":
			m.ReadOnly = true
		case "", "rw", "nosuid", "nodev", "noexec": // as it is without
		default:
			c.warnAt(at, "the option "+option+" is not acted on", "")
		}
		if err != nil || m.SizeBytes < 0 || m.Mode > math.MaxUint16 {
			c.failAt(at, fmt.Sprintf("%q is not a %s", value, key), "write it like size=64m or mode=1777")
		}
	}
	return m
}
