package api

import (
	"encoding/json"
	"unicode/utf8"
)

// Limits on one object: it is kept in the memory of all managers and, in part, of
// all nodes.
const (
	maxSpec        = 256 << 10 // bytes, as JSON
	maxPorts       = 512
	maxNetworks    = 64
	maxAliases     = 256
	maxMounts      = 256
	maxEnv         = 2048
	maxLabels      = 256
	maxLabelKey    = 256
	maxLabelValue  = 4096
	maxConstraints = 64
	maxDepends     = 256
	maxArguments   = 2048

	maxMessage = 4096 // of a task's status, in bytes
	maxFact    = 256  // of what a node says of itself
	maxFacts   = 256  // of one kind: labels, drivers, kinds of things
	maxVolumes = 4096 // that a node has

	maxTunnelKeys = 2 // of one epoch and of the next
)

// ValidateSize refuses a spec of which anything is too large.
func (s *ServiceSpec) ValidateSize() error {
	for _, part := range []struct {
		what       string
		have, most int
	}{
		{"published ports", len(s.Ports), maxPorts},
		{"networks", len(s.Networks), maxNetworks},
		{"further names", s.aliases(), maxAliases},
		{"mounts", len(s.Task.Mounts), maxMounts},
		{"environment variables", len(s.Task.Env), maxEnv},
		{"placement constraints", len(s.Placement.Constraints), maxConstraints},
		{"dependencies", len(s.DependsOn), maxDepends},
		{"words in its command", len(s.Task.Entrypoint) + len(s.Task.Command), maxArguments},
	} {
		if part.have > part.most {
			return Errorf(CodeInvalid, "service %s: %d %s: at most %d are possible", s.Name, part.have, part.what, part.most)
		}
	}
	for _, labels := range []map[string]string{s.Labels, s.Task.Labels} {
		if err := ValidateLabels("service "+s.Name, labels); err != nil {
			return err
		}
	}
	data, err := json.Marshal(s)
	if err != nil {
		return Errorf(CodeInvalid, "service %s: %v", s.Name, err)
	}
	if len(data) > maxSpec {
		return Errorf(CodeInvalid, "service %s is %d bytes long: at most %d are possible; large content belongs in configs, volumes or images", s.Name, len(data), maxSpec)
	}
	return nil
}

func (s *ServiceSpec) aliases() int {
	n := 0
	for _, names := range s.NetworkAliases {
		n += len(names)
	}
	return n
}

// ValidateLabels refuses labels of which there are too many, or that are too long.
func ValidateLabels(of string, labels map[string]string) error {
	if len(labels) > maxLabels {
		return Errorf(CodeInvalid, "%s: %d labels: at most %d are possible", of, len(labels), maxLabels)
	}
	for _, k := range SortedKeys(labels) {
		if k == "" || len(k) > maxLabelKey || len(labels[k]) > maxLabelValue {
			return Errorf(CodeInvalid, "%s: label %.40q: its name has 1 to %d bytes, its value at most %d", of, k, maxLabelKey, maxLabelValue)
		}
	}
	return nil
}

// Bounded is the status without more than a node may have the managers keep.
func (s TaskStatus) Bounded() TaskStatus {
	s.Message, s.ContainerID = cut(s.Message, maxMessage), cut(s.ContainerID, maxFact)
	return s
}

// Bounded is the info without more than a node may have the managers keep.
func (i NodeInfo) Bounded() NodeInfo {
	for _, fact := range []*string{&i.OS, &i.Arch, &i.Kernel, &i.EngineVersion, &i.OrchVersion, &i.Datapath, &i.Issuer, &i.GossipRing} {
		*fact = cut(*fact, maxFact)
	}
	i.VolumeDrivers, i.LogDrivers, i.Volumes = boundedList(i.VolumeDrivers, maxFacts), boundedList(i.LogDrivers, maxFacts), boundedList(i.Volumes, maxVolumes)
	if i.Encryption != nil {
		bounded := Encryption{Lacks: cut(i.Encryption.Lacks, maxFact)}
		for _, key := range i.Encryption.Keys {
			if len(key.Public) == TunnelKeyBytes && len(bounded.Keys) < maxTunnelKeys {
				bounded.Keys = append(bounded.Keys, key)
			}
		}
		i.Encryption = &bounded
	}
	i.EngineLabels, i.Generic = boundedMap(i.EngineLabels), boundedMap(i.Generic)
	for _, k := range SortedKeys(i.EngineLabels) {
		i.EngineLabels[k] = cut(i.EngineLabels[k], maxFact)
	}
	return i
}

// boundedList leaves out what is longer than a fact: shortened, it would be
// another's name.
func boundedList(list []string, most int) []string {
	if list == nil {
		return nil
	}
	kept := make([]string, 0, min(len(list), most))
	for _, fact := range list {
		if len(fact) <= maxFact && len(kept) < most {
			kept = append(kept, fact)
		}
	}
	return kept
}

func boundedMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return nil
	}
	kept := make(map[string]V, min(len(m), maxFacts))
	for _, k := range SortedKeys(m) {
		if len(k) <= maxFact && len(kept) < maxFacts {
			kept[k] = m[k]
		}
	}
	return kept
}

// cut shortens a text to so many bytes, at the end of a letter.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}
