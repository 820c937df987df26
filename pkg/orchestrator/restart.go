package orchestrator

import (
	"fmt"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// rowMemory is how close together tasks of a slot must end to count as
	// ending in a row, where the policy has no window of its own.
	rowMemory = 5 * time.Minute
	// minDelay is waited between restarts in a row even if the policy says
	// less: a task that ends at once would keep the whole cluster busy.
	minDelay = time.Second
)

// restart is what follows the end of a slot's last task.
type restart struct {
	again     bool
	failed    bool // it ended badly
	notBefore time.Time
	reason    string
}

// afterEnd decides whether and when a slot without a task gets another, from
// its past, newest first.
//
// The restart policy is about tasks of the current spec that end by themselves;
// after an update, a lost node or a stop the next task is made at once. So is
// the one after a first end; each further one in a row waits for the delay.
func (p *planner) afterEnd(svc *api.Service, ended []*task) restart {
	if len(ended) == 0 {
		return restart{again: true}
	}
	last := ended[0]
	switch {
	case isOutdated(svc, last):
		return restart{again: true, reason: "the service was updated"}
	case beforeResume(svc, last):
		return restart{again: true, reason: "the update was resumed"}
	case last.Status.State == api.TaskOrphaned:
		return restart{again: true, reason: last.Status.Message}
	case askedToLeave(last):
		return restart{again: true, reason: last.Reason}
	}
	policy := svc.Spec.Restart
	r := restart{failed: failed(svc, last), reason: describeEnd(last)}
	if policy.Condition == api.RestartNone || policy.Condition == api.RestartOnFailure && !r.failed {
		return r
	}
	if policy.MaxAttempts > 0 && inARow(svc, ended, policy.Window) > policy.MaxAttempts {
		return r
	}
	r.again = true
	window := policy.Window
	if window == 0 {
		window = rowMemory
	}
	if n := inARow(svc, ended, window); n > 1 {
		delay := max(policy.Delay, minDelay)
		r.notBefore = p.Now.Add(delay)
		r.reason = fmt.Sprintf("restart after %v, %d ends in a row: %s", delay, n, r.reason)
	}
	return r
}

// inARow counts the newest tasks of the current spec that ended by themselves
// with no other in between, within window (0: any time) before the newest end.
func inARow(svc *api.Service, ended []*task, window time.Duration) int {
	n := 0
	for _, t := range ended {
		if isOutdated(svc, t) || beforeResume(svc, t) || askedToLeave(t) || t.Status.State == api.TaskOrphaned {
			break
		}
		if window > 0 && ended[0].Status.At.Sub(t.Status.At) > window {
			break
		}
		n++
	}
	return n
}

// failed reports whether a task of the current spec ended badly by itself.
func failed(svc *api.Service, t *task) bool {
	bad := t.Status.State == api.TaskFailed || t.Status.State == api.TaskRejected ||
		t.Status.State == api.TaskComplete && svc.Spec.Restart.Condition == api.RestartAny // it was not meant to end
	return bad && !isOutdated(svc, t) && !beforeResume(svc, t) && !askedToLeave(t)
}

// beforeResume reports whether a task ended before the update that is under way
// was resumed: what it says does not count any more.
func beforeResume(svc *api.Service, t *task) bool {
	return svc.Update.Running() && !t.EndedAt.IsZero() && t.EndedAt.Before(svc.Update.Since)
}

// replacementEnded reports whether a task that was to replace old has ended, so
// that old's turn has come already and the next try is a restart.
func (s *slot) replacementEnded(svc *api.Service, old *task) bool {
	ended := s.ended()
	return len(ended) > 0 && !isOutdated(svc, ended[0]) && !beforeResume(svc, ended[0]) && compareAge(ended[0], old) > 0
}

func describeEnd(t *task) string {
	var what string
	switch t.Status.State {
	case api.TaskComplete:
		what = "the last task ended"
	case api.TaskRejected:
		what = "the last task could not be started"
	default:
		what = "the last task failed"
	}
	if line, _, _ := strings.Cut(t.Status.Message, "\n"); line != "" {
		what += ": " + line
	}
	return what
}
