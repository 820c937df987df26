package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/compose"
)

func newServiceUpdateCommand(c *cli) *cobra.Command {
	var flags updateFlags
	var w waiting
	cmd := &cobra.Command{
		Use:   "update SERVICE",
		Short: "Change a service, and wait until its tasks are replaced",
		Example: `  orch service update --image registry.example.com/web:2 blog_web
  orch service update --env-add LOG_LEVEL=debug --update-parallelism 2 blog_web
  orch service update --force blog_web`,
		Args: exactArgs(1, "the name or ID of a service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := flags.request(args[0], cmd)
			if err != nil {
				return err
			}
			if req.Resolve, err = flags.images.when(); err != nil {
				return err
			}
			if req.Auth, err = flags.images.credentials(req.Image); err != nil {
				return err
			}
			res, err := call[api.UpdateRequest, api.UpdateResponse](cmd, c, api.ProcUpdate, req)
			if err != nil {
				return err
			}
			return w.await(cmd, c, res)
		},
	}
	flags.define(cmd)
	w.define(cmd)
	return cmd
}

// waiting is how long a command waits for what it started.
type waiting struct {
	detach  bool
	timeout time.Duration
}

func (w *waiting) define(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVarP(&w.detach, "detach", "d", false, "do not wait until everything runs")
	f.DurationVar(&w.timeout, "timeout", 15*time.Minute, "how long to wait until everything runs")
}

// await says what was begun with a service and waits for its end.
func (w *waiting) await(cmd *cobra.Command, c *cli, res *api.UpdateResponse) error {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s: %s\n", res.Service, res.Action)
	if w.detach {
		return nil
	}
	g := goal{services: []string{res.Service}, index: res.Index, updated: map[string]bool{res.Service: res.Action == "updated"}}
	return awaitStack(cmd.Context(), c, out, g, w.timeout)
}

// newSteerCommand is a command about a service's update.
func newSteerCommand(c *cli, action api.Steer, short string) *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use:   string(action) + " SERVICE",
		Short: short,
		Args:  exactArgs(1, "the name or ID of a service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := call[api.SteerRequest, api.UpdateResponse](cmd, c, api.ProcSteer, &api.SteerRequest{Service: args[0], Action: action})
			if err != nil {
				return err
			}
			return w.await(cmd, c, res)
		},
	}
	if action == api.SteerPause {
		w.detach = true // there is nothing to wait for
		return cmd
	}
	w.define(cmd)
	return cmd
}

// updateFlags are what `orch service update` can change.
type updateFlags struct {
	image                           string
	images                          imageFlags
	replicas                        int
	addEnv, removeEnv               []string
	addLabels, removeLabels         []string
	secrets, configs                fileFlags
	addConstraints, dropConstraints []string
	stopGrace                       time.Duration
	force                           bool
	update, rollback                ruleFlags
}

func (u *updateFlags) define(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&u.image, "image", "", "the image of its tasks")
	u.images.defineResolve(cmd)
	f.IntVar(&u.replicas, "replicas", 0, "how many tasks it has; this alone replaces none")
	f.StringArrayVar(&u.addEnv, "env-add", nil, "add or change an environment variable, KEY=VALUE")
	f.StringArrayVar(&u.removeEnv, "env-rm", nil, "remove an environment variable, KEY")
	f.StringArrayVar(&u.addLabels, "label-add", nil, "add or change a label of the service, KEY=VALUE")
	f.StringArrayVar(&u.removeLabels, "label-rm", nil, "remove a label of the service, KEY")
	f.StringArrayVar(&u.addConstraints, "constraint-add", nil, "add a placement constraint, for instance node.labels.disk==ssd")
	f.StringArrayVar(&u.dropConstraints, "constraint-rm", nil, "remove a placement constraint, as it was written")
	f.DurationVar(&u.stopGrace, "stop-grace-period", 0, "how long open connections are waited for, and then the end of a task")
	f.BoolVar(&u.force, "force", false, "replace all tasks even if nothing else changes")
	u.secrets.define(cmd, api.ClassSecret)
	u.configs.define(cmd, api.ClassConfig)
	u.update.define(cmd, "update")
	u.rollback.define(cmd, "rollback")
}

func (u *updateFlags) request(service string, cmd *cobra.Command) (*api.UpdateRequest, error) {
	req := &api.UpdateRequest{
		Service: service, Image: u.image, AddEnv: u.addEnv, RemoveEnv: u.removeEnv, RemoveLabels: u.removeLabels, Force: u.force,
		Update: u.update.change(cmd), Rollback: u.rollback.change(cmd),
		Replicas: given(cmd, "replicas", &u.replicas), StopGrace: given(cmd, "stop-grace-period", &u.stopGrace),
	}
	changes := cmd.Flags().NFlag()
	for _, other := range []string{"detach", "timeout", "host", "resolve-image"} {
		if cmd.Flags().Changed(other) {
			changes--
		}
	}
	if changes == 0 {
		return nil, errors.New("say what to change, for instance --image web:2 (see --help)")
	}
	for _, kv := range u.addEnv {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return nil, fmt.Errorf("--env-add %q: give KEY=VALUE", kv)
		}
	}
	for _, kv := range u.addLabels {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--label-add %q: give KEY=VALUE", kv)
		}
		if req.AddLabels == nil {
			req.AddLabels = make(map[string]string)
		}
		req.AddLabels[k] = v
	}
	for _, f := range []*fileFlags{&u.secrets, &u.configs} {
		if err := f.into(req); err != nil {
			return nil, err
		}
	}
	var err error
	if req.AddConstraints, err = constraints(u.addConstraints); err != nil {
		return nil, err
	}
	req.RemoveConstraints, err = constraints(u.dropConstraints)
	return req, err
}

func constraints(texts []string) ([]api.Constraint, error) {
	var list []api.Constraint
	for _, text := range texts {
		c, err := compose.ParseConstraint(text)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// ruleFlags change the rules for updates or for rollbacks.
type ruleFlags struct {
	prefix         string
	parallelism    int
	delay, monitor time.Duration
	ratio          float64
	order, action  string
}

func (r *ruleFlags) define(cmd *cobra.Command, prefix string) {
	f := cmd.Flags()
	r.prefix = prefix
	f.IntVar(&r.parallelism, prefix+"-parallelism", 0, "tasks replaced at a time, 0 for all")
	f.DurationVar(&r.delay, prefix+"-delay", 0, "time between two batches")
	f.DurationVar(&r.monitor, prefix+"-monitor", 0, "how long a new task is watched for failures")
	f.Float64Var(&r.ratio, prefix+"-max-failure-ratio", 0, "the part of the tasks that may fail, 0 to 1")
	f.StringVar(&r.order, prefix+"-order", "", "start-first or stop-first")
	f.StringVar(&r.action, prefix+"-failure-action", "", "what to do when more fail: pause, continue or (for updates) rollback")
}

func (r *ruleFlags) change(cmd *cobra.Command) api.UpdateChange {
	return api.UpdateChange{
		Parallelism: given(cmd, r.prefix+"-parallelism", &r.parallelism), Delay: given(cmd, r.prefix+"-delay", &r.delay),
		Monitor: given(cmd, r.prefix+"-monitor", &r.monitor), MaxFailureRatio: given(cmd, r.prefix+"-max-failure-ratio", &r.ratio),
		Order: api.UpdateOrder(r.order), FailureAction: api.FailureAction(r.action),
	}
}

// given is a flag's value, nil if the user did not set it.
func given[T any](cmd *cobra.Command, name string, value *T) *T {
	if cmd.Flags().Changed(name) {
		return value
	}
	return nil
}
