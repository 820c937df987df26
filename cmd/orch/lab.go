package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/lab"
)

// newLabCommand returns `orch lab`: a cluster on one machine.
func newLabCommand() *cobra.Command {
	var name string
	command := &cobra.Command{
		Use:   "lab",
		Short: "A cluster of several nodes on this machine, to try things out",
		Long: `A lab is a cluster of several nodes on this machine: each node is a network
namespace with an orch daemon of its own, and all share the Docker Engine. A
client namespace stands for the world outside the cluster. Needs root.`,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			// What is wrong from here on is not the command line.
			cmd.SilenceUsage = true
			if os.Geteuid() != 0 {
				return errors.New("orch lab makes network namespaces and needs root: use sudo")
			}
			return nil
		},
	}
	command.PersistentFlags().StringVar(&name, "name", "lab", "name of the lab")
	command.AddCommand(
		newLabUpCommand(&name), newLabListCommand(&name), newLabExecCommand(&name),
		newLabKillCommand(&name), newLabStartCommand(&name),
		newLabWireCommand(&name, "cut", "Unplug a node from the network; it goes on running, alone", (*lab.Lab).Cut),
		newLabWireCommand(&name, "heal", "Plug a node that was cut in again", (*lab.Lab).Heal),
		newLabDownCommand(&name),
	)
	return command
}

func newLabUpCommand(name *string) *cobra.Command {
	var options lab.Options
	var datapath string
	command := &cobra.Command{
		Use:   "up",
		Short: "Make a lab and wait until its cluster is healthy",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.Name, options.Datapath = *name, lab.Datapath(datapath)
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			start := time.Now()
			l, err := lab.Up(ctx, options)
			if err != nil {
				return err
			}
			o := l.Options()
			fmt.Fprintf(cmd.OutOrStdout(), "lab %s is up: %d nodes (%d managers) ready in %.1f s\n\n",
				o.Name, o.Nodes, o.Managers, time.Since(start).Seconds())
			return printLabs(cmd.OutOrStdout(), []*lab.Lab{l})
		},
	}
	flags := command.Flags()
	flags.IntVar(&options.Nodes, "nodes", 3, "number of nodes")
	flags.IntVar(&options.Managers, "managers", 0, "how many of them are managers (default: three, or all if fewer)")
	flags.StringVar(&datapath, "datapath", "auto", "how eBPF programs are attached: auto, xdp or tc")
	flags.IntVar(&options.MTU, "mtu", 1500, "MTU of the network between the nodes, in bytes")
	return command
}

func newLabListCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the nodes of all labs, or of the one named",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{*name}
			if !cmd.Flags().Changed("name") {
				var err error
				if names, err = lab.Names(cmd.Context()); err != nil {
					return err
				}
			}
			var labs []*lab.Lab
			var errs []error
			for _, name := range names {
				l, err := lab.Open(name)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				labs = append(labs, l)
			}
			return errors.Join(append(errs, printLabs(cmd.OutOrStdout(), labs))...)
		},
	}
}

func printLabs(out io.Writer, labs []*lab.Lab) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "LAB\tNODE\tADDRESS\tROLE\tSTATE\tPID\tNAMESPACE")
	for _, l := range labs {
		for _, n := range l.Nodes() {
			role, pid := "worker", "-"
			if n.Manager {
				role = "manager"
			}
			status := l.Status(n)
			if status.PID != 0 {
				pid = fmt.Sprint(status.PID)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
				l.Options().Name, n.Name, n.Addr, role, status.State, pid, l.NamespaceName(n.Name))
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t-\t-\t-\t%s\n",
			l.Options().Name, lab.ClientName, lab.ClientAddr, l.NamespaceName(lab.ClientName))
	}
	return table.Flush()
}

func newLabExecCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "exec NODE|client -- COMMAND [ARGUMENT...]",
		Short: "Run a command on a node, or on the client outside the cluster",
		Long: `Run a command in the network namespace of a node, with ORCH_HOST set so that
orch commands talk to that node, or in that of the client. Its exit code is the
command's.`,
		Example: `  orch lab exec client -- curl -s http://10.201.0.12:8080/
  orch lab exec n2 -- orch node ls`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			return l.Become(args[0], args[1:])
		},
	}
}

func newLabKillCommand(name *string) *cobra.Command {
	var daemonOnly bool
	command := &cobra.Command{
		Use:   "kill NODE",
		Short: "Cut a node's power: daemon, containers and network are gone at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			if daemonOnly {
				return l.KillDaemon(cmd.Context(), args[0])
			}
			return l.Kill(cmd.Context(), args[0])
		},
	}
	command.Flags().BoolVar(&daemonOnly, "daemon-only", false, "kill the node's daemon and leave its containers and network")
	return command
}

func newLabStartCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "start NODE",
		Short: "Start a node that was killed, or its daemon",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			return l.Start(cmd.Context(), args[0])
		},
	}
}

func newLabWireCommand(name *string, verb, short string, do func(*lab.Lab, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NODE",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			return do(l, args[0])
		},
	}
}

func newLabDownCommand(name *string) *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "down",
		Short: "Remove a lab and everything it made, whatever state it is in",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{*name}
			if all {
				var err error
				if names, err = lab.Names(cmd.Context()); err != nil {
					return err
				}
			}
			var errs []error
			for _, name := range names {
				errs = append(errs, downLab(cmd.Context(), cmd.OutOrStdout(), name))
			}
			if len(names) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "there is no lab")
			}
			return errors.Join(errs...)
		},
	}
	command.Flags().BoolVar(&all, "all", false, "remove every lab of this machine")
	return command
}

func downLab(ctx context.Context, out io.Writer, name string) error {
	if err := lab.Down(ctx, name); err != nil {
		return err
	}
	fmt.Fprintf(out, "lab %s is gone\n", name)
	return nil
}
