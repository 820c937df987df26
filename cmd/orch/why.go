package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
)

func newWhyCommand(c *cli) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "why TASK|SERVICE|NODE",
		Short: "Say why something is where it is, waits or was stopped, and what happened to it",
		Long: `Say why a task, a service or a node is as it is: why a task is on its node, why it
waits, with what each filter has against how many nodes, why it was stopped, and
what happened to it, in order.`,
		Example: `  orch why blog_web      # a service and its slots
  orch why blog_web.2    # the newest task of a slot
  orch why n3            # what runs on a node, and why the rest does not`,
		Args: exactArgs(1, "the name or ID of a task, a service or a node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			why, err := call[api.WhyRequest, api.Why](cmd, c, api.ProcWhy, &api.WhyRequest{Name: args[0]})
			if err != nil {
				return err
			}
			switch format {
			case "text":
				printWhy(cmd.OutOrStdout(), why)
				return nil
			case "json":
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(why)
			}
			return fmt.Errorf("--format %q: use text or json", format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	return cmd
}

func printWhy(w io.Writer, why *api.Why) {
	fmt.Fprintf(w, "%s %s (%s): %s\n", why.Kind, why.Name, shortID(why.ID), why.State)
	printDetails(w, "  ", why)
	for i := range why.Tasks {
		t := &why.Tasks[i]
		fmt.Fprintf(w, "\n  %s (%s): %s\n", t.Name, shortID(t.ID), t.State)
		printDetails(w, "    ", t)
	}
	if len(why.Services) > 0 {
		fmt.Fprintln(w, "\n  without a task here:")
	}
	for _, s := range why.Services {
		reason := "the node suits; its tasks are elsewhere, or it needs none"
		if s.Reason != "" {
			reason = "the node " + s.Reason
		}
		fmt.Fprintf(w, "    %s: %s\n", s.Service, reason)
	}
}

func printDetails(w io.Writer, indent string, why *api.Why) {
	for _, r := range why.Reasons {
		fmt.Fprintf(w, "%s%s\n", indent, strings.ReplaceAll(strings.TrimSpace(r), "\n", "\n"+indent))
	}
	for _, f := range why.Filters {
		fmt.Fprintf(w, "%s%-14s %3d refused: %s\n", indent, f.Filter, f.Nodes, f.Reason)
	}
	for _, n := range why.Nodes {
		reason := n.Reason
		if reason == "" {
			reason = "suits"
		}
		fmt.Fprintf(w, "%s  node %s %s\n", indent, n.Node, reason)
	}
	for _, e := range why.History {
		fmt.Fprintf(w, "%s  %s  %s\n", indent, e.At.Local().Format("15:04:05.000"), e.What)
	}
}
