package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

const (
	// hopelessFailures is how many tasks of a spec may fail, with none running
	// in their slots, before a deploy says that it will not work.
	hopelessFailures = 3
	// unplaceablePatience is how long tasks may have no node that suits them.
	unplaceablePatience = 10 * time.Second
)

// stackWatch follows a stack until it has converged or will not.
type stackWatch struct {
	goal
	show  func(*api.StackStatus)
	since time.Time
	now   func() time.Time

	last        *api.StackStatus
	unplaceable time.Time // since when; zero: all have a node
}

// run follows the stream through changes of leader.
func (w *stackWatch) run(ctx context.Context, client *rpc.Client) error {
	for {
		err := rpc.Stream(ctx, client, api.ProcWatchStack, &api.StackRequest{Stack: w.stack}, w.each)
		if ctx.Err() != nil || errors.Is(err, errConverged) || errors.Is(err, errGone) || err != nil && api.CodeOf(err) == api.CodeInvalid {
			return err
		}
		var hopeless hopelessError
		if errors.As(err, &hopeless) {
			return err
		}
		select { // a manager went away: another goes on
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// hopelessError ends a watch: waiting longer would not help.
type hopelessError struct{ error }

func (w *stackWatch) each(status *api.StackStatus) error {
	if status.Index < w.index {
		return nil // of before the change
	}
	if len(w.services) > 0 {
		only := *status
		only.Services = slices.DeleteFunc(slices.Clone(status.Services), func(s api.ServiceStatus) bool {
			return !slices.Contains(w.services, s.Name)
		})
		status = &only
	}
	if len(status.Services) == 0 {
		return errGone
	}
	w.last = status
	w.show(status)
	updating, err := w.updates(status)
	if err != nil {
		return err
	}
	if status.Converged() && !updating {
		return errConverged
	}
	unplaceable := false
	for _, s := range status.Services {
		unplaceable = unplaceable || s.Unplaceable
		if s.Update.Running() {
			continue // it is judged by its own rules
		}
		if s.GaveUp {
			return hopelessError{fmt.Errorf("does not run:\n%s\n(by its restart policy it is not tried again; see `orch service ps %s`)", troubles(status), s.Name)}
		}
		if s.Failures >= hopelessFailures {
			return hopelessError{fmt.Errorf("does not run:\n%s\n(it is tried again until it does or is removed; see `orch service ps %s`)", troubles(status), s.Name)}
		}
	}
	switch {
	case !unplaceable:
		w.unplaceable = time.Time{}
	case w.unplaceable.IsZero():
		w.unplaceable = w.now()
	case w.now().Sub(w.unplaceable) > unplaceablePatience:
		return hopelessError{fmt.Errorf("does not run:\n%s\n(it starts once a node suits)", troubles(status))}
	}
	return nil
}

// updates reports whether an update is under way. It fails if one was stopped,
// or has come to its end as another than was asked for.
func (w *stackWatch) updates(status *api.StackStatus) (running bool, err error) {
	for _, s := range status.Services {
		u := s.Update
		switch {
		case u.Paused():
			return false, hopelessError{fmt.Errorf("%s: %s", s.Name, paused(s))}
		case u.Running():
			running = true
			if u.State == api.UpdateRunning {
				if w.updated == nil {
					w.updated = make(map[string]bool)
				}
				w.updated[s.Name] = true
			}
		case u.Back() && w.updated[s.Name] && s.Converged:
			return false, hopelessError{fmt.Errorf("%s: the update was rolled back: %s\n(all tasks run the earlier spec)", s.Name, u.Message)}
		}
	}
	return running, nil
}

// paused says why an update waits for a user, and what he can do.
func paused(s api.ServiceStatus) string {
	if s.Update.Back() {
		return fmt.Sprintf("the rollback is paused: %s\n(%d of %d tasks run the earlier spec; `orch service resume %s` goes on)",
			s.Update.Message, s.Updated, s.Desired, s.Name)
	}
	return fmt.Sprintf("the update is paused: %s\n(%d of %d tasks run the new spec; `orch service resume %s` goes on, `orch service rollback %s` goes back)",
		s.Update.Message, s.Updated, s.Desired, s.Name, s.Name)
}

// progress shows how far services are: as lines that are rewritten on a
// terminal, as plain lines of what changed otherwise.
type progress struct {
	out      io.Writer
	start    time.Time
	terminal bool
	lines    int // on the terminal, to be rewritten
	said     map[string]string
}

func newProgress(out io.Writer, start time.Time) *progress {
	f, ok := out.(*os.File)
	return &progress{out: out, start: start, terminal: ok && term.IsTerminal(int(f.Fd())), said: make(map[string]string)}
}

func (p *progress) show(status *api.StackStatus) {
	if p.terminal {
		if p.lines > 0 {
			fmt.Fprintf(p.out, "\x1b[%dA\x1b[J", p.lines)
		}
		p.lines = len(status.Services)
		for _, s := range status.Services {
			fmt.Fprintln(p.out, bar(s))
		}
		return
	}
	for _, s := range status.Services {
		if text := state(s); p.said[s.Name] != text {
			p.said[s.Name] = text
			fmt.Fprintf(p.out, "%5.1fs  %s: %s\n", time.Since(p.start).Seconds(), s.Name, text)
		}
	}
}

func (p *progress) close() { p.lines = 0 }

// state says in words how far a service is.
func state(s api.ServiceStatus) string {
	text := fmt.Sprintf("%d of %d run", s.Updated, s.Desired)
	if s.Mode.Job() {
		text = fmt.Sprintf("%d run, %d of %d completed", s.Running, s.Completed, s.Desired)
	} else if s.Completed > 0 {
		text += fmt.Sprintf(", %d completed", s.Completed)
	}
	if s.Update.Running() && s.Reason == "" {
		text += ", " + string(s.Update.State)
	}
	switch {
	case s.Converged && s.Update.Running():
		return text + ", the new tasks are watched"
	case s.Converged:
		return text + ", done"
	case s.Reason != "":
		return text + ", " + oneLine(s.Reason, 140)
	case finished(s) == s.Desired:
		return text + ", old tasks are leaving"
	}
	return text
}

const barWidth = 20

// finished is how many slots are as they should be.
func finished(s api.ServiceStatus) int {
	if s.Mode.Job() {
		return s.Completed
	}
	return s.Updated + s.Completed
}

// bar draws how far a service is.
func bar(s api.ServiceStatus) string {
	filled := barWidth
	if s.Desired > 0 {
		filled = min(barWidth, barWidth*finished(s)/s.Desired)
	}
	mark := " "
	if s.Converged && !s.Update.Running() {
		mark = "✓"
	}
	return fmt.Sprintf("%s %-24s [%s%s] %s", mark, s.Name, strings.Repeat("█", filled), strings.Repeat("·", barWidth-filled), oneLine(state(s), 70))
}
