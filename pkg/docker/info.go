package docker

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// Info returns the parts of a node's description that its engine knows: OS,
// Arch (as uname has it), Kernel, EngineVersion, CPUs, MemoryBytes, what it is
// labelled with, its drivers, generic resources and volumes.
func (e *Engine) Info(ctx context.Context) (api.NodeInfo, error) {
	res, err := e.cli.Info(ctx, client.InfoOptions{})
	if err != nil {
		return api.NodeInfo{}, wrap("docker info", err)
	}
	volumes, err := e.cli.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return api.NodeInfo{}, wrap("list volumes", err)
	}
	return api.NodeInfo{
		OS:            res.Info.OSType,
		Arch:          res.Info.Architecture,
		Kernel:        res.Info.KernelVersion,
		EngineVersion: res.Info.ServerVersion,
		CPUs:          res.Info.NCPU,
		MemoryBytes:   res.Info.MemTotal,
		EngineLabels:  engineLabels(res.Info.Labels),
		VolumeDrivers: slices.Sorted(slices.Values(res.Info.Plugins.Volume)),
		LogDrivers:    slices.Sorted(slices.Values(res.Info.Plugins.Log)),
		Generic:       generic(res.Info.GenericResources),
		Volumes:       e.cfg.localVolumes(volumes.Items),
	}, nil
}

func engineLabels(list []string) map[string]string {
	var labels map[string]string
	for _, l := range list {
		if labels == nil {
			labels = map[string]string{}
		}
		key, value, _ := strings.Cut(l, "=")
		labels[key] = value
	}
	return labels
}

// generic counts what there is of each kind, whether it has names or not.
func generic(list []swarm.GenericResource) map[string]int64 {
	var counts map[string]int64
	count := func(kind string, n int64) {
		if counts == nil {
			counts = map[string]int64{}
		}
		counts[kind] += n
	}
	for _, r := range list {
		if r.DiscreteResourceSpec != nil {
			count(r.DiscreteResourceSpec.Kind, r.DiscreteResourceSpec.Value)
		}
		if r.NamedResourceSpec != nil {
			count(r.NamedResourceSpec.Kind, 1)
		}
	}
	return counts
}

// anonymous volumes go with their container.
var anonymous = regexp.MustCompile(`^[0-9a-f]{64}$`)

// networked are the file systems that the local driver mounts from elsewhere.
var networked = []string{"nfs", "nfs4", "cifs", "smb3"}

// localVolumes are the names, as specs have them, of the volumes that exist on
// this node alone.
func (c *Config) localVolumes(all []volume.Volume) []string {
	var names []string
	for _, v := range all {
		name := v.Name
		if c.Lab != "" {
			if v.Labels[LabelLab] != c.Lab || v.Labels[LabelLabNode] != c.LabNode {
				continue
			}
			name = v.Labels[LabelVolume]
		}
		if v.Scope != "global" && !slices.Contains(networked, v.Options["type"]) && !anonymous.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
