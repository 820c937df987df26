package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestValidateSize(t *testing.T) {
	many := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint("x", i))
		}
		return out
	}
	tests := []struct {
		name string
		edit func(*ServiceSpec)
		says string // "": is good
	}{
		{"as much as is possible", func(s *ServiceSpec) { s.Ports, s.Task.Env = make([]Port, maxPorts), many(maxEnv) }, ""},
		{"ports", func(s *ServiceSpec) { s.Ports = make([]Port, maxPorts+1) }, "published ports"},
		{"networks", func(s *ServiceSpec) { s.Networks = many(maxNetworks + 1) }, "networks"},
		{"mounts", func(s *ServiceSpec) { s.Task.Mounts = make([]Mount, maxMounts+1) }, "mounts"},
		{"environment", func(s *ServiceSpec) { s.Task.Env = many(maxEnv + 1) }, "environment variables"},
		{"constraints", func(s *ServiceSpec) { s.Placement.Constraints = make([]Constraint, maxConstraints+1) }, "constraints"},
		{"dependencies", func(s *ServiceSpec) { s.DependsOn = make([]Dependency, maxDepends+1) }, "dependencies"},
		{"command", func(s *ServiceSpec) { s.Task.Command = many(maxArguments + 1) }, "command"},
		{"a label's name", func(s *ServiceSpec) { s.Labels = map[string]string{strings.Repeat("k", maxLabelKey+1): ""} }, "label"},
		{"a label's value", func(s *ServiceSpec) { s.Task.Labels = map[string]string{"k": strings.Repeat("v", maxLabelValue+1)} }, "label"},
		{"all of it", func(s *ServiceSpec) { s.Task.Env = []string{"A=" + strings.Repeat("x", maxSpec)} }, "bytes long"},
	}
	for _, tt := range tests {
		spec := &ServiceSpec{Name: "web"}
		tt.edit(spec)
		err := spec.ValidateSize()
		if tt.says == "" && err != nil || tt.says != "" && (CodeOf(err) != CodeInvalid || err == nil || !strings.Contains(err.Error(), tt.says) || len(err.Error()) > 300) {
			t.Errorf("%s: %.400v, want %q", tt.name, err, tt.says)
		}
	}
}

func TestBoundedStatus(t *testing.T) {
	got := TaskStatus{State: TaskFailed, Message: strings.Repeat("ü", maxMessage), ContainerID: strings.Repeat("c", 1000)}.Bounded()
	if len(got.Message) > maxMessage || len(got.Message) < maxMessage-4 || !utf8.ValidString(got.Message) || len(got.ContainerID) != maxFact || got.State != TaskFailed {
		t.Errorf("%d bytes of message, %d of ID", len(got.Message), len(got.ContainerID))
	}
	short := TaskStatus{Message: "no such image"}
	if short.Bounded() != short {
		t.Error("a short one is changed")
	}
}

// What a node says of itself is bounded, and kept as it is if it is of a sane size.
func TestBoundedInfo(t *testing.T) {
	sane := NodeInfo{
		OS: "linux", CPUs: 4, VolumeDrivers: []string{"local"}, LogDrivers: []string{}, Volumes: []string{"a_b"},
		EngineLabels: map[string]string{"zone": "a"}, Generic: map[string]int64{"gpu": 2},
	}
	if got := sane.Bounded(); !reflect.DeepEqual(got, sane) {
		t.Errorf("got %+v, want %+v", got, sane)
	}
	long := strings.Repeat("x", 1<<20)
	hostile := NodeInfo{OS: long, Datapath: long, Issuer: long, EngineLabels: map[string]string{long: "a"}, Generic: map[string]int64{}, Volumes: []string{long}}
	for i := range 10_000 {
		name := fmt.Sprint(i)
		hostile.EngineLabels[name], hostile.Generic[name] = long, 1
		hostile.Volumes, hostile.LogDrivers = append(hostile.Volumes, name), append(hostile.LogDrivers, name)
	}
	text, err := json.Marshal(hostile.Bounded())
	if err != nil || len(text) > 256<<10 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if len(hostile.EngineLabels["1"]) != len(long) {
		t.Error("what was given was changed")
	}
}
