package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

func newRebalanceCommand(c *cli) *cobra.Command {
	var plan, detach bool
	l := &list{}
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "Spread services over the nodes again that have become uneven",
		Long: `Spread services over the nodes again that have become uneven.

It also happens by itself, towards a node that has joined or come back. One task
of a service moves at a time, another is started in its place before it ends, and
only from a node that has at least two more than the one it goes to. Tasks with
local volumes, of global services, of jobs and singletons stay where they are.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := call[api.RebalanceRequest, api.Rebalancing](cmd, c, api.ProcRebalance, &api.RebalanceRequest{Plan: plan})
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if plan {
				return printMoves(out, l, res)
			}
			if len(res.Moves) == 0 {
				fmt.Fprintln(out, "all services are even, as far as their tasks can move")
				return nil
			}
			for _, m := range res.Moves {
				fmt.Fprintf(out, "%s: %s -> %s\n", m.Task, m.From, m.To)
			}
			if detach {
				return nil
			}
			client, err := c.daemon()
			if err != nil {
				return err
			}
			return awaitEven(cmd.Context(), client, out)
		},
	}
	l.flags(cmd)
	cmd.Flags().BoolVar(&plan, "plan", false, "only show what would move, and why")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait until all have moved")
	return cmd
}

func printMoves(out io.Writer, l *list, res *api.Rebalancing) error {
	var rows [][]string
	var keys []string
	for _, m := range res.Moves {
		rows = append(rows, []string{m.Task, m.From, m.To, m.Why})
		keys = append(keys, string(m.ID))
	}
	return l.print(out, res.Moves, []string{"TASK", "FROM", "TO", "WHY"}, rows, keys)
}

// awaitEven tells how much is left to move until nothing is.
func awaitEven(ctx context.Context, client *rpc.Client, out io.Writer) error {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	left := -1
	for {
		res, err := rpc.Call[api.RebalanceRequest, api.Rebalancing](ctx, client, api.ProcRebalance, &api.RebalanceRequest{Plan: true})
		switch {
		case err == nil && len(res.Moves) == 0 && !res.Busy:
			fmt.Fprintln(out, "all services are even")
			return nil
		case err == nil && !res.Busy:
			return fmt.Errorf("%d tasks could not be moved: their replacements did not run (see `orch why %s`)", len(res.Moves), res.Moves[0].Task)
		case err == nil && len(res.Moves) != left:
			left = len(res.Moves)
			fmt.Fprintf(out, "%d left to move\n", left)
		case err != nil && ctx.Err() == nil && api.CodeOf(err) != api.CodeUnavailable:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no longer waiting; the cluster goes on moving tasks (see `orch rebalance --plan`)")
		case <-ticker.C:
		}
	}
}
