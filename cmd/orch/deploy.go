package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
)

func newDeployCommand(c *cli) *cobra.Command {
	var files stackFiles
	var images imageFlags
	var prune, detach bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "deploy [-c FILE] [STACK]",
		Short: "Make a stack be what a compose file says, and wait until it runs",
		Long: `Make a stack be what a compose file says, and wait until it runs.

` + stackFilesHelp,
		Example: `  orch deploy blog
  orch deploy -c compose.yaml -c compose.prod.yaml --prune blog`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, project, err := files.load(cmd, args)
			if err != nil {
				return fmt.Errorf("nothing was deployed:\n%w", err)
			}
			req.Prune = prune
			if err := images.prepare(cmd, c, req, project.Builds); err != nil {
				return err
			}
			res, err := call[api.DeployRequest, api.DeployResponse](cmd, c, api.ProcDeploy, req)
			if err != nil {
				return err
			}
			for _, w := range res.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			out := cmd.OutOrStdout()
			for _, s := range res.Services {
				fmt.Fprintf(out, "%s: %s\n", s.Name, s.Action)
			}
			if detach {
				return nil
			}
			updated := make(map[string]bool)
			for _, s := range res.Services {
				updated[s.Name] = s.Action == "updated"
			}
			return awaitStack(cmd.Context(), c, out, goal{stack: req.Stack, index: res.Index, updated: updated}, timeout)
		},
	}
	files.define(cmd)
	images.define(cmd)
	cmd.Flags().BoolVar(&prune, "prune", false, "remove the stack's services that the file does not name")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait until everything runs")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait until everything runs")
	return cmd
}

// What ends the stream of a stack's status.
var (
	errConverged = errors.New("converged")
	errGone      = errors.New("the stack was removed meanwhile")
)

// goal is what a command waits for.
type goal struct {
	stack    string
	services []string        // instead of a stack, by full names
	index    api.Index       // of the change that is waited for
	updated  map[string]bool // services whose update is to succeed
}

func (g goal) name() string {
	if g.stack == "" {
		return strings.Join(g.services, ", ")
	}
	return g.stack
}

// look is the command that shows its tasks.
func (g goal) look() string {
	if g.stack == "" {
		return "orch service ps " + g.services[0]
	}
	return "orch stack ps " + g.stack
}

// awaitStack shows a stack's progress until all of it runs. It fails when
// something will not run, not in time, or not as was asked for.
func awaitStack(ctx context.Context, c *cli, out io.Writer, what goal, timeout time.Duration) error {
	client, err := c.daemon()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	p := newProgress(out, time.Now())
	watch := &stackWatch{goal: what, show: p.show, since: time.Now(), now: time.Now}
	err = watch.run(ctx, client)
	p.close()
	switch {
	case errors.Is(err, errConverged):
		fmt.Fprintf(out, "%s: everything runs (%.1f s)\n", what.name(), time.Since(watch.since).Seconds())
		for _, s := range watch.last.Services {
			sayPorts(out, s.Name, "every node", slices.DeleteFunc(slices.Clone(s.Ports), func(p api.Port) bool { return p.Host }))
			sayPorts(out, s.Name, "its tasks' nodes", slices.DeleteFunc(slices.Clone(s.Ports), func(p api.Port) bool { return !p.Host }))
		}
		return nil
	case ctx.Err() == context.DeadlineExceeded:
		return fmt.Errorf("not everything runs after %s:\n%s", timeout, troubles(watch.last))
	case ctx.Err() != nil:
		return fmt.Errorf("no longer waiting for %s; the cluster goes on (see `%s`)", what.name(), what.look())
	}
	return err
}

func sayPorts(out io.Writer, service, where string, list []api.Port) {
	if len(list) > 0 {
		fmt.Fprintf(out, "%s answers on %s: %s\n", service, where, ports(list))
	}
}

// troubles lists what does not run and why.
func troubles(status *api.StackStatus) string {
	if status == nil {
		return "the managers gave no status"
	}
	var lines []string
	for _, s := range status.Services {
		if !s.Converged {
			reason := s.Reason
			if reason == "" {
				reason = "no reason is known yet"
			}
			lines = append(lines, fmt.Sprintf("%s: %d of %d run: %s", s.Name, s.Updated, s.Desired, reason))
		}
	}
	return strings.Join(lines, "\n")
}
