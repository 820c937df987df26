package docker

import (
	"github.com/moby/moby/api/types/container"

	"github.com/orch-dev/orch/pkg/api"
)

// setOptions adds o to the description of a container. What o has about its
// names and its network is in the sandbox and in the task's files.
func setOptions(cfg *container.Config, host *container.HostConfig, o *api.ContainerOptions) {
	cfg.Tty = o.TTY
	cfg.OpenStdin = o.StdinOpen
	host.Annotations = o.Annotations
	host.GroupAdd = o.GroupAdd
	host.Privileged = o.Privileged
	host.SecurityOpt = o.SecurityOpt
	host.UsernsMode = container.UsernsMode(o.UsernsMode)
	host.PidMode = container.PidMode(o.PidMode)
	host.IpcMode = container.IpcMode(o.IPCMode)
	host.CgroupnsMode = container.CgroupnsMode(o.CgroupMode)
	host.Runtime = o.Runtime
	host.StorageOpt = o.StorageOpt
	host.Sysctls = o.Sysctls
	host.ShmSize = o.ShmBytes
	host.OomScoreAdj = o.OOMScoreAdj
	host.MemorySwap = o.MemorySwapBytes
	host.CPUShares = o.CPUShares
	host.CpusetCpus = o.CPUSet
	host.DeviceCgroupRules = o.DeviceCgroupRules
	for _, d := range o.Devices {
		host.Devices = append(host.Devices, container.DeviceMapping{PathOnHost: d.Source, PathInContainer: d.Target, CgroupPermissions: d.Permissions})
	}
	for _, r := range o.DeviceRequests {
		host.DeviceRequests = append(host.DeviceRequests, container.DeviceRequest{
			Driver: r.Driver, Count: r.Count, DeviceIDs: r.IDs, Capabilities: [][]string{r.Capabilities}, Options: r.Options,
		})
	}
	for _, u := range o.Ulimits {
		host.Ulimits = append(host.Ulimits, &container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
}
