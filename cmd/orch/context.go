package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/orch-dev/orch/cmd/orch/daemon"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/spf13/cobra"
)

func newContextCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Use clusters that are elsewhere",
		Long: `Use clusters that are elsewhere. A context is a cluster and who you are there; it is
made of a file that ` + "`orch user add`" + ` writes on a manager, and kept in ~/.orch. The
context ` + localContext + ` is the daemon on this machine. --context, ` + contextVariable + `, or
--host choose another for one command.`,
		Args: noSuchCommand, RunE: showHelp,
	}
	cmd.AddCommand(newContextCreateCommand(), newContextListCommand(c), newContextUseCommand(), newContextShowCommand(c), newContextRemoveCommand())
	return cmd
}

func newContextCreateCommand() *cobra.Command {
	var from string
	var managers []string
	cmd := &cobra.Command{
		Use:   "create NAME --from FILE",
		Short: "Make a context of a file that `orch user add` has written",
		Args:  exactArgs(1, "a name for the context"),
		RunE: func(cmd *cobra.Command, args []string) error {
			kept, err := homeContexts()
			if err != nil {
				return err
			}
			if err := kept.check(args[0]); err != nil {
				return err
			}
			if _, err := os.Stat(kept.file(args[0])); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("there is a context %s already: `orch context rm %s` removes it", args[0], args[0])
			}
			if from == "" {
				return fmt.Errorf("say which file to make it of, for instance `%s --from alice.orch`", cmd.CommandPath())
			}
			r, err := readRemote(from)
			if err != nil {
				return err
			}
			if len(managers) > 0 {
				r.Managers = nil
				for _, addr := range managers {
					r.Managers = append(r.Managers, rpc.WithPort(addr))
				}
			}
			if err := kept.save(args[0], r); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "`orch context use %s` uses it from now on, `orch --context %s ...` for one command.\n", args[0], args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the file")
	cmd.Flags().StringArrayVar(&managers, "manager", nil, "a manager's address as it is reached from here, HOST[:PORT], instead of those in the file")
	return cmd
}

func newContextListCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the contexts",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kept, err := homeContexts()
			if err != nil {
				return err
			}
			names, err := kept.names()
			if err != nil {
				return err
			}
			current, err := c.contextName(kept)
			if err != nil {
				return err
			}
			shown := []contextEntry{{Name: localContext, Current: current == localContext, Managers: []string{"unix://" + daemon.DefaultRunDir + "/" + daemon.SocketName}}}
			for _, name := range names {
				r, err := kept.load(name)
				if err != nil {
					return err
				}
				shown = append(shown, contextEntry{name, current == name, r.Cluster, r.User.Name, string(r.User.Role), r.Managers})
			}
			return l.print(cmd.OutOrStdout(), shown, []string{"NAME", "USED", "USER", "ROLE", "CLUSTER", "MANAGERS"}, contextRows(shown), append([]string{localContext}, names...))
		},
	}
	l.flags(cmd)
	return cmd
}

// contextEntry is a context without what is secret in it.
type contextEntry struct {
	Name     string   `json:"name"`
	Current  bool     `json:"current"`
	Cluster  string   `json:"cluster,omitempty"`
	User     string   `json:"user,omitempty"`
	Role     string   `json:"role,omitempty"`
	Managers []string `json:"managers"`
}

func contextRows(entries []contextEntry) (rows [][]string) {
	for _, e := range entries {
		used := ""
		if e.Current {
			used = "*"
		}
		rows = append(rows, []string{e.Name, used, e.User, e.Role, shortID(e.Cluster), strings.Join(e.Managers, ", ")})
	}
	return rows
}

func newContextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "use NAME",
		Short: "Have all commands use a context",
		Args:  exactArgs(1, "the name of a context"),
		RunE: func(_ *cobra.Command, args []string) error {
			kept, err := homeContexts()
			if err != nil {
				return err
			}
			return kept.use(args[0])
		},
	}
}

func newContextShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Say which context is used",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kept, err := homeContexts()
			if err != nil {
				return err
			}
			name, err := c.contextName(kept)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return err
		},
	}
}

func newContextRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove contexts from this machine; the users stay",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kept, err := homeContexts()
			if err != nil {
				return err
			}
			var failed []error
			for _, name := range slices.Compact(args) {
				if err := kept.remove(name); err != nil {
					failed = append(failed, err)
					continue
				}
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return errors.Join(failed...)
		},
	}
}
