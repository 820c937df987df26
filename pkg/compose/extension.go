package compose

import (
	"fmt"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// extension sets what a service's x-orch says, which compose files have no key for.
func (c *converter) extension(at string, in any, spec *api.ServiceSpec) {
	given, ok := in.(map[string]any)
	if in != nil && !ok {
		c.failAt(at, "x-orch is a mapping", "")
	}
	if value, ok := given["progress_deadline"]; ok {
		spec.ProgressDeadline = c.someTime(at+".progress_deadline", value)
	}
	if value, ok := given["singleton"]; ok {
		at := at + ".singleton"
		yes, isBool := value.(bool)
		switch {
		case !isBool:
			c.failAt(at, fmt.Sprintf("%v is neither true nor false", value), "")
		case yes && (spec.Mode != api.ModeReplicated || spec.Replicas > 1):
			c.failAt(at, "a singleton has one replica", "leave out mode and replicas")
		case yes && spec.Update.Order == api.StartFirst:
			c.warnAt(at, "update_config.order is stop-first for a singleton: its next task never starts before the last has ended", "")
		}
		spec.Task.Singleton = yes
	}
	if value, ok := given["affinity"]; ok {
		if value != string(api.AffinityClient) {
			c.failAt(at+".affinity", fmt.Sprintf("%v is nothing that flows can be kept together by", value), "use client")
		}
		spec.Balance.Affinity = api.AffinityClient
	}
	if value, ok := given["prefer"]; ok {
		if value != "local" {
			c.failAt(at+".prefer", fmt.Sprintf("%v is not among the tasks that can be preferred", value), "use local")
		}
		spec.Balance.Local = true
	}
	if value, ok := given["return"]; ok {
		text, _ := value.(string)
		spec.Return = api.Return(text)
		if text == "" || !spec.Return.Valid() {
			c.failAt(at+".return", fmt.Sprintf("%v is no way that replies can take", value), "use tunnel or dsr")
		}
	}
	if value, ok := given["max_concurrent"]; ok {
		at := at + ".max_concurrent"
		n, isNumber := value.(int)
		switch {
		case spec.Mode != api.ModeReplicatedJob:
			c.failAt(at, "only a replicated job has a number of tasks that run at the same time", "")
		case !isNumber || n < 1:
			c.failAt(at, fmt.Sprintf("%v is not a number of tasks", value), "")
		}
		spec.MaxConcurrent = n
	}
}

// someTime is a duration that is longer than none.
func (c *converter) someTime(at string, value any) time.Duration {
	d, err := time.ParseDuration(fmt.Sprint(value))
	switch {
	case err != nil:
		c.failAt(at, fmt.Sprintf("%v is not a duration; write it like 10s or 1m30s", value), "")
	case d <= 0:
		c.failAt(at, fmt.Sprintf("%v is no time", value), "")
	}
	return d
}
