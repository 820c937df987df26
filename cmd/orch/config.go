package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
)

func newStackConfigCommand() *cobra.Command {
	var files stackFiles
	cmd := &cobra.Command{
		Use:   "config [-c FILE] [STACK]",
		Short: "Print what a compose file means: what would be deployed, as JSON, with nothing sent",
		Long: `Print what a compose file means: what would be deployed, as JSON, with nothing sent.

Variables, merged files and defaults are filled in. What is in secrets is left out. No cluster is needed.

` + stackFilesHelp,
		Example: `  orch stack config -c compose.yaml blog
  orch stack config -c compose.yaml blog | jq '.services[].task.image'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, project, err := files.load(cmd, args)
			if err != nil {
				return err
			}
			for i := range req.Files {
				if req.Files[i].Class == api.ClassSecret {
					req.Files[i].Data = nil
				}
			}
			out := struct {
				*api.DeployRequest
				Builds any `json:"builds,omitempty"`
			}{DeployRequest: req}
			if len(project.Builds) > 0 {
				out.Builds = project.Builds
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(out)
		},
	}
	files.define(cmd)
	return cmd
}
