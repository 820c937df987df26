package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
	show  func(*api.StackStatus)
	index api.Index // of the change that is waited for
	since time.Time
	now   func() time.Time

	last        *api.StackStatus
	unplaceable time.Time // since when; zero: all have a node
}

// run follows the stream through changes of leader.
func (w *stackWatch) run(ctx context.Context, client *rpc.Client, stack string) error {
	for {
		err := rpc.Stream(ctx, client, api.ProcWatchStack, &api.StackRequest{Stack: stack}, w.each)
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
	if len(status.Services) == 0 {
		return errGone
	}
	w.last = status
	w.show(status)
	if status.Converged() {
		return errConverged
	}
	unplaceable := false
	for _, s := range status.Services {
		if s.GaveUp {
			return hopelessError{fmt.Errorf("does not run:\n%s\n(by its restart policy it is not tried again; see `orch service ps %s`)", troubles(status), s.Name)}
		}
		if s.Failures >= hopelessFailures {
			return hopelessError{fmt.Errorf("does not run:\n%s\n(it is tried again until it does or is removed; see `orch service ps %s`)", troubles(status), s.Name)}
		}
		unplaceable = unplaceable || s.Unplaceable
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
	if s.Completed > 0 {
		text += fmt.Sprintf(", %d completed", s.Completed)
	}
	switch {
	case s.Converged:
		return text + ", done"
	case s.Reason != "":
		return text + ", " + oneLine(s.Reason, 140)
	case s.Updated+s.Completed == s.Desired:
		return text + ", old tasks are leaving"
	}
	return text
}

const barWidth = 20

// bar draws how far a service is.
func bar(s api.ServiceStatus) string {
	filled := barWidth
	if s.Desired > 0 {
		filled = min(barWidth, barWidth*(s.Updated+s.Completed)/s.Desired)
	}
	mark := " "
	if s.Converged {
		mark = "✓"
	}
	return fmt.Sprintf("%s %-24s [%s%s] %s", mark, s.Name, strings.Repeat("█", filled), strings.Repeat("·", barWidth-filled), oneLine(state(s), 70))
}
