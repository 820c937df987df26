package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

func newLeaveCommand(c *cli) *cobra.Command {
	req := &api.LeaveRequest{}
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Have this node leave its cluster",
		Long: `Have this node leave its cluster. Its tasks move elsewhere, each once another has
taken its place; a manager becomes a worker first, and lets another lead. It is
refused where too few of the remaining managers would answer. Named volumes and
images stay.

With --force nothing is waited for and nothing refused: the tasks end at once, and
the node leaves also if no manager can be asked, or the cluster is lost by it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.daemon()
			if err != nil {
				return err
			}
			return rpc.Stream(cmd.Context(), client, api.ProcLeave, req, func(p *api.LeaveProgress) error {
				if p.Warning != "" {
					fmt.Fprintln(cmd.ErrOrStderr(), "orch: warning:", p.Warning)
				}
				if p.Line != "" {
					showLine(cmd.OutOrStdout(), oneLine(p.Line, 100), p.Left)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&req.Force, "force", "f", false, "at once, and in any case")
	cmd.Flags().BoolVar(&req.Purge, "purge", false, "also remove the programs and maps in the kernel, which otherwise stay for the next join with nothing to do, and put back the settings of the kernel that were changed")
	return cmd
}
