package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

func newServiceCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "service", Short: "List, look into, scale and update services", Args: noSuchCommand, RunE: showHelp}
	cmd.AddCommand(newServiceListCommand(c), newServiceTasksCommand(c), newServiceScaleCommand(c), newServiceLogsCommand(c),
		newServiceUpdateCommand(c),
		newSteerCommand(c, api.SteerRollback, "Take a service back to what it was before its last update"),
		newSteerCommand(c, api.SteerPause, "Stop a service's update where it is"),
		newSteerCommand(c, api.SteerResume, "Let a service's paused update go on"))
	return cmd
}

func newServiceListCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the services",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printServices(cmd, c, l, &api.ServicesRequest{})
		},
	}
	l.flags(cmd)
	return cmd
}

// replicas says how many of a service's tasks run, and of a job's are done.
func replicas(s api.ServiceStatus) string {
	if s.Mode.Job() {
		return fmt.Sprintf("%d/%d (%d/%d completed)", s.Running, s.MaxConcurrent, s.Completed, s.Desired)
	}
	return fmt.Sprintf("%d/%d", s.Running, s.Desired)
}

func printServices(cmd *cobra.Command, c *cli, l *list, req *api.ServicesRequest) error {
	services, err := call[api.ServicesRequest, api.ServiceList](cmd, c, api.ProcServices, req)
	if err != nil {
		return err
	}
	var rows [][]string
	var keys []string
	for _, s := range services.Services {
		rows = append(rows, []string{
			shortID(s.ID), s.Spec.Name, string(s.Spec.Mode), replicas(s.Status),
			s.Spec.Task.Image, ports(s.Ports), oneLine(s.Status.Reason, 60),
		})
		keys = append(keys, string(s.ID))
	}
	return l.print(cmd.OutOrStdout(), services.Services, []string{"ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS", "NOTE"}, rows, keys)
}

func newServiceTasksCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ps SERVICE",
		Short: "List the tasks of a service",
		Args:  exactArgs(1, "the name or ID of a service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printTasks(cmd, c, l, &api.TasksRequest{Service: args[0]})
		},
	}
	l.flags(cmd)
	return cmd
}

func printTasks(cmd *cobra.Command, c *cli, l *list, req *api.TasksRequest) error {
	tasks, err := call[api.TasksRequest, api.TaskList](cmd, c, api.ProcTasks, req)
	if err != nil {
		return err
	}
	var rows [][]string
	var keys []string
	now, slot := time.Now(), ""
	for _, t := range tasks.Tasks {
		name := t.Name()
		if t.Slot == 0 && t.NodeName != "" {
			name = t.ServiceName + "." + t.NodeName
		}
		if name == slot { // an earlier task of the same slot
			name = " \\_ " + name
		} else {
			slot = name
		}
		note := t.Status.Message
		if note == "" && t.Status.State != api.TaskRunning {
			note = t.Reason
		}
		rows = append(rows, []string{
			shortID(t.ID), name, t.Spec.Image, t.NodeName, address(t.Task),
			string(t.Desired), strings.TrimSpace(string(t.Status.State) + " " + age(now, t.Status.At)), oneLine(note, 80),
		})
		keys = append(keys, string(t.ID))
	}
	return l.print(cmd.OutOrStdout(), tasks.Tasks, []string{"ID", "NAME", "IMAGE", "NODE", "ADDRESS", "DESIRED", "STATE", "NOTE"}, rows, keys)
}

// address is a task's, while it has one.
func address(t api.Task) string {
	if !t.Endpoint.Addr.IsValid() || t.Endpoint.State == api.EndpointGone {
		return ""
	}
	return t.Endpoint.Addr.String()
}

func newServiceScaleCommand(c *cli) *cobra.Command {
	var detach bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "scale SERVICE=REPLICAS...",
		Short: "Set how many replicas services have, and wait until they run",
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := parseScale(args)
			if err != nil {
				return err
			}
			res, err := call[api.ScaleRequest, api.ScaleResponse](cmd, c, api.ProcScale, req)
			if err != nil || detach {
				return err
			}
			return awaitStack(cmd.Context(), c, cmd.OutOrStdout(), goal{services: res.Services, index: res.Index}, timeout)
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait until they run")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait until they run")
	return cmd
}

func parseScale(args []string) (*api.ScaleRequest, error) {
	req := &api.ScaleRequest{Replicas: make(map[string]int)}
	for _, arg := range args {
		name, count, ok := strings.Cut(arg, "=")
		n, err := strconv.Atoi(count)
		if !ok || name == "" || err != nil || n < 0 {
			return nil, fmt.Errorf("%q: give SERVICE=REPLICAS, for instance blog_web=6", arg)
		}
		if _, twice := req.Replicas[name]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		req.Replicas[name] = n
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("give SERVICE=REPLICAS, for instance blog_web=6")
	}
	return req, nil
}

func newServiceLogsCommand(c *cli) *cobra.Command {
	req := &api.ServiceLogsRequest{}
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "logs SERVICE",
		Short: "Print what a service's tasks write",
		Args:  exactArgs(1, "the name or ID of a service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.daemon()
			if err != nil {
				return err
			}
			if req.Service = args[0]; req.Options.Tail < 0 || since < 0 {
				return errors.New("--tail and --since cannot be negative")
			}
			if since > 0 {
				req.Options.Since = time.Now().Add(-since)
			}
			lines := &lineJoiner{out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(), partial: make(map[string][]byte)}
			defer lines.flush()
			err = rpc.Stream(cmd.Context(), client, api.ProcServiceLogs, req, lines.write)
			if cmd.Context().Err() != nil {
				return nil // the user has seen enough
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&req.Options.Follow, "follow", "f", false, "go on as they write more")
	f.IntVarP(&req.Options.Tail, "tail", "n", 0, "only the last lines of each task (0: all)")
	f.DurationVar(&since, "since", 0, "only what was written in the last while, for instance 10m")
	f.BoolVarP(&req.Options.Timestamps, "timestamps", "t", false, "the time before each line")
	return cmd
}

// lineJoiner prints whole lines, each with the name of its task: the chunks of
// several tasks come in any order.
type lineJoiner struct {
	out, errOut io.Writer
	partial     map[string][]byte
}

func (l *lineJoiner) write(chunk *api.LogChunk) error {
	prefix := chunk.Task + "@" + chunk.Node + " | "
	out, key := l.out, prefix
	if chunk.Stderr {
		out, key = l.errOut, prefix+"!"
	}
	data := append(l.partial[key], chunk.Data...)
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			l.partial[key] = data
			return nil
		}
		if _, err := fmt.Fprintf(out, "%s%s\n", prefix, data[:i]); err != nil {
			return err
		}
		data = data[i+1:]
	}
}

// flush prints what has no end of line.
func (l *lineJoiner) flush() {
	for key, data := range l.partial {
		if len(data) > 0 {
			fmt.Fprintf(l.out, "%s%s\n", strings.TrimSuffix(key, "!"), data)
		}
	}
}
