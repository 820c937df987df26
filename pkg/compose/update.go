package compose

import (
	"fmt"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/orch-dev/orch/pkg/api"
)

// updateRules are how tasks are replaced, with Swarm's defaults.
func (c *converter) updateRules(at string, in *types.UpdateConfig) api.UpdateConfig {
	out := api.UpdateConfig{
		Parallelism: api.DefaultParallelism, Order: api.StopFirst, Monitor: api.DefaultMonitor, FailureAction: api.FailurePause,
	}
	if in == nil {
		return out
	}
	if in.Parallelism != nil {
		out.Parallelism = c.count(at+".parallelism", *in.Parallelism)
	}
	switch order := api.UpdateOrder(in.Order); order {
	case "":
	case api.StartFirst, api.StopFirst:
		out.Order = order
	default:
		c.failAt(at+".order", fmt.Sprintf("%q is not an order", in.Order), "use start-first or stop-first")
	}
	switch action := api.FailureAction(in.FailureAction); action {
	case "":
	case api.FailurePause, api.FailureContinue, api.FailureRollback:
		out.FailureAction = action
	default:
		c.failAt(at+".failure_action", fmt.Sprintf("%q is not an action", in.FailureAction), "use pause, continue or rollback")
	}
	if in.Monitor != 0 || c.given(at+".monitor") { // 0s: not watched at all
		out.Monitor = c.duration(at+".monitor", &in.Monitor, 0)
	}
	out.Delay = c.duration(at+".delay", &in.Delay, 0)
	// compose-go has it in single precision.
	if out.MaxFailureRatio = float64(int64(float64(in.MaxFailureRatio)*1e6+0.5)) / 1e6; out.MaxFailureRatio < 0 || out.MaxFailureRatio > 1 {
		c.failAt(at+".max_failure_ratio", fmt.Sprintf("%v is not between 0 and 1", in.MaxFailureRatio), "")
	}
	return out
}

// rollbackRules are those of rollback_config. Without one a rollback goes the
// way of an update: who updates without a gap wants none on the way back.
func (c *converter) rollbackRules(at string, in *types.UpdateConfig, update api.UpdateConfig) api.UpdateConfig {
	if in == nil {
		update.FailureAction = api.FailurePause
		return update
	}
	out := c.updateRules(at, in)
	if out.FailureAction == api.FailureRollback {
		c.failAt(at+".failure_action", "a rollback is not rolled back", "use pause or continue")
	}
	return out
}

// given reports whether the files have a key.
func (c *converter) given(path string) bool {
	_, ok := c.places[path]
	return ok
}
