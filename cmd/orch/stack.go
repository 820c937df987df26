package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

func newStackCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "stack", Short: "List, look into and remove stacks", Args: noSuchCommand, RunE: showHelp}
	deploy := newDeployCommand(c)
	cmd.AddCommand(deploy, newStackListCommand(c), newStackTasksCommand(c), newStackServicesCommand(c), newStackConfigCommand(), newStackRemoveCommand(c))
	return cmd
}

func newStackListCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the stacks",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			stacks, err := call[api.Empty, api.StackList](cmd, c, api.ProcStacks, &api.Empty{})
			if err != nil {
				return err
			}
			var rows [][]string
			var keys []string
			for _, s := range stacks.Stacks {
				rows = append(rows, []string{s.Name, strconv.Itoa(s.Services), strconv.Itoa(s.Tasks)})
				keys = append(keys, s.Name)
			}
			return l.print(cmd.OutOrStdout(), stacks.Stacks, []string{"NAME", "SERVICES", "TASKS"}, rows, keys)
		},
	}
	l.flags(cmd)
	return cmd
}

func newStackTasksCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ps STACK",
		Short: "List the tasks of a stack",
		Args:  exactArgs(1, "the name of a stack"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printTasks(cmd, c, l, &api.TasksRequest{Stack: args[0]})
		},
	}
	l.flags(cmd)
	return cmd
}

func newStackServicesCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "services STACK",
		Short: "List the services of a stack",
		Args:  exactArgs(1, "the name of a stack"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printServices(cmd, c, l, &api.ServicesRequest{Stack: args[0]})
		},
	}
	l.flags(cmd)
	return cmd
}

func newStackRemoveCommand(c *cli) *cobra.Command {
	detach := false
	cmd := &cobra.Command{
		Use:   "rm STACK",
		Short: "Remove a stack's services and networks; its named volumes stay",
		Args:  exactArgs(1, "the name of a stack"),
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := call[api.StackRequest, api.RemoveStackResponse](cmd, c, api.ProcRemoveStack, &api.StackRequest{Stack: args[0]})
			if err != nil {
				return err
			}
			for _, s := range res.Services {
				fmt.Fprintln(cmd.OutOrStdout(), s+": removing")
			}
			if detach {
				return nil
			}
			client, err := c.daemon()
			if err != nil {
				return err
			}
			if err := awaitGone(cmd.Context(), client, args[0]); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), args[0]+": removed")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait until it is gone")
	return cmd
}

// awaitGone waits until no task of a stack is left on a node that answers. What
// is on a lost node is removed when it comes back.
func awaitGone(ctx context.Context, client *rpc.Client, stack string) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		tasks, err := rpc.Call[api.TasksRequest, api.TaskList](ctx, client, api.ProcTasks, &api.TasksRequest{Stack: stack})
		switch {
		case api.CodeOf(err) == api.CodeNotFound:
			return nil
		case err == nil && !slices.ContainsFunc(tasks.Tasks, holdsOn):
			return nil
		case err != nil && ctx.Err() == nil && api.CodeOf(err) != api.CodeUnavailable:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no longer waiting; the cluster goes on removing %s (see `orch stack ps %s`)", stack, stack)
		case <-ticker.C:
		}
	}
}

// holdsOn reports whether a node that answers still has something of the task.
func holdsOn(t api.TaskEntry) bool {
	return !t.Status.Removed && t.Status.State != api.TaskOrphaned
}
