// Command orch is all of orch: the command line, and the daemon that runs on
// every node and that the command line talks to.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/cmd/orch/daemon"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		var exit exitError
		if errors.As(err, &exit) {
			stop()
			os.Exit(int(exit))
		}
		fmt.Fprintln(os.Stderr, "orch:", err)
		stop()
		os.Exit(1)
	}
}

// exitError ends the process with a status of its own, with nothing more said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

const (
	hostVariable    = "ORCH_HOST"
	contextVariable = "ORCH_CONTEXT"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "orch",
		Short:         "Run compose files on a cluster of Linux machines",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cli := &cli{}
	root.PersistentFlags().StringVarP(&cli.host, "host", "H", "", "the daemon on this machine to talk to, unix://PATH (or the environment's "+hostVariable+")")
	root.PersistentFlags().StringVar(&cli.context, "context", "", "the cluster to talk to, see `orch context` (or the environment's "+contextVariable+")")
	root.MarkFlagsMutuallyExclusive("host", "context")
	root.PersistentPostRun = func(cmd *cobra.Command, _ []string) { cli.close(cmd.Context(), cmd.ErrOrStderr()) }
	consistent := root.PersistentFlags().Bool("consistent", false, "have the leader make sure first that it still leads: what is shown is then the newest there is")
	stale := root.PersistentFlags().Bool("stale", false, "show what the manager that is asked knows, also without a leader")
	root.MarkFlagsMutuallyExclusive("consistent", "stale")
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		switch {
		case *consistent:
			cmd.SetContext(rpc.WithRead(cmd.Context(), api.ReadConsistent))
		case *stale:
			cmd.SetContext(rpc.WithRead(cmd.Context(), api.ReadStale))
		}
	}
	root.AddGroup(
		&cobra.Group{ID: "cluster", Title: "Cluster:"},
		&cobra.Group{ID: "work", Title: "Stacks and services:"},
		&cobra.Group{ID: "node", Title: "This machine:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("cluster", newInitCommand(cli), newJoinCommand(cli), newLeaveCommand(cli), newJoinTokenCommand(cli), newAuthorityCommand(cli),
		newNodeCommand(cli), newUserCommand(cli), newContextCommand(cli),
		newClusterCommand(cli), newUnlockCommand(cli), newUnlockKeyCommand(cli),
		newInfoCommand(cli), newNetCommand(cli), newDoctorCommand(cli))
	add("work", newDeployCommand(cli), newStackCommand(cli), newServiceCommand(cli),
		newFileCommand(cli, api.ClassSecret, "Make, list and remove secrets"),
		newFileCommand(cli, api.ClassConfig, "Make, list, look into and remove configs"),
		newWhyCommand(cli), newRebalanceCommand(cli))
	root.AddCommand(daemon.NewGuardCommand())
	add("node", daemon.NewCommand(version), newLabCommand())
	return root
}
