package agent

import (
	"context"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// firstProbe is how long after its start a task is first asked whether it
	// is healthy; the pause doubles from one time to the next, up to maxProbe.
	firstProbe = 50 * time.Millisecond
	maxProbe   = 5 * time.Second
)

// probes times the agent's own probes of a task that has just started. They
// only bring good news early: that a task is unhealthy is for the runtime to
// say, by the rules of the healthcheck.
type probes struct {
	due   time.Time // zero: none
	pause time.Duration
}

// next returns in how long a probe is due, if one is.
func (p *probes) next(now time.Time) (time.Duration, bool) {
	return max(0, p.due.Sub(now)), !p.due.IsZero()
}

// probe asks a task that starts whether it is healthy, if it is time to.
func (w *worker) probe(ctx context.Context, state api.ContainerState) bool {
	now := w.agent.Now()
	p := &w.probes
	if p.pause == 0 {
		p.pause, p.due = firstProbe, now.Add(firstProbe)
		return false
	}
	if now.Before(p.due) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, maxProbe)
	defer cancel()
	healthy, err := w.agent.Runtime.Probe(ctx, state.ContainerID)
	if err != nil && ctx.Err() == nil {
		w.agent.Log.Debug("probe", "task", w.id, "err", err)
	}
	if healthy {
		p.due = time.Time{}
		return true
	}
	p.pause = min(2*p.pause, maxProbe)
	p.due = w.agent.Now().Add(p.pause)
	return false
}
