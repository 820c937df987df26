package docker

import (
	"maps"
	"strconv"
	"strings"

	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// Labels on everything that this package makes in an engine.
const (
	LabelCluster = "orch.cluster"
	LabelNode    = "orch.node"
	LabelTask    = "orch.task"
	LabelService = "orch.service"
	LabelStack   = "orch.stack"
	LabelSlot    = "orch.slot" // 0 for a task of a global service
	LabelRole    = "orch.role" // RoleSandbox or RoleTask
	LabelLab     = "orch.lab"
	LabelLabNode = "orch.lab-node"
	LabelVolume  = "orch.volume" // the volume's name in the spec

	RoleSandbox = "sandbox"
	RoleTask    = "task"
)

// labels of a container of t. A user's label cannot take the place of ours.
func (c *Config) labels(t *api.Task, role string) map[string]string {
	l := map[string]string{}
	if role == RoleTask {
		maps.Copy(l, t.Spec.Labels)
	}
	maps.Copy(l, c.labLabels())
	l[LabelCluster] = c.ClusterID
	l[LabelNode] = string(c.Node)
	l[LabelTask] = string(t.ID)
	l[LabelService] = t.ServiceName
	l[LabelStack] = t.Stack
	l[LabelSlot] = strconv.Itoa(t.Slot)
	l[LabelRole] = role
	return l
}

func (c *Config) volumeLabels(t *api.Task, m *api.Mount) map[string]string {
	l := maps.Clone(m.Labels)
	if l == nil {
		l = map[string]string{}
	}
	maps.Copy(l, c.labLabels())
	l[LabelCluster] = c.ClusterID
	l[LabelNode] = string(c.Node)
	l[LabelStack] = t.Stack
	l[LabelVolume] = m.Source
	return l
}

func (c *Config) labLabels() map[string]string {
	l := map[string]string{}
	if c.Lab != "" {
		l[LabelLab] = c.Lab
	}
	if c.LabNode != "" {
		l[LabelLabNode] = c.LabNode
	}
	return l
}

// volumeName is the engine's name for the volume that specs call name. Nodes
// of a lab share an engine but, like machines, not their volumes.
func (c *Config) volumeName(name string) string {
	if c.Lab == "" {
		return name
	}
	return sanitize("orch-" + c.Lab + "-" + c.LabNode + "-" + name)
}

// owns reports whether a container or volume with these labels is this node's.
func (c *Config) owns(labels map[string]string) bool {
	return labels[LabelCluster] == c.ClusterID && labels[LabelNode] == string(c.Node)
}

// filter selects this node's objects, and of those the ones with all of more
// (KEY=VALUE).
func (c *Config) filter(more ...string) client.Filters {
	return client.Filters{}.
		Add("label", LabelCluster+"="+c.ClusterID, LabelNode+"="+string(c.Node)).
		Add("label", more...)
}

func taskLabel(id api.TaskID) string { return LabelTask + "=" + string(id) }

// Names are made of the task alone, so that making a container twice is a
// conflict that the engine detects.

func taskName(t *api.Task) string {
	return sanitize(t.Name() + "." + string(t.ID))
}

func sandboxName(t *api.Task) string {
	return sanitize("orch-" + t.Name() + "-" + short(t.ID) + "-net")
}

func short(id api.TaskID) string {
	return string(id[:min(len(id), 12)])
}

// sanitize replaces what the engine does not take in a name: it wants
// [a-zA-Z0-9][a-zA-Z0-9_.-]+.
func sanitize(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '.', r == '-':
			return r
		}
		return '-'
	}, name)
	return strings.TrimLeft(name, "_.-")
}
