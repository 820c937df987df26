package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/doctor"
)

func newDoctorCommand(c *cli) *cobra.Command {
	l, s := &list{}, &scope{}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine every node and the network between them",
		Long: `Examine every node and the network between them: what the kernel can do, how the
programs are attached, whether the ports between the nodes are open and packets of
full size arrive, firewall, clock, Docker Engine, disk. It changes nothing. Each
line is ok, warn or fail; the exit code is 1 if one is fail.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answers, err := gather[api.Empty, api.NodeFacts](cmd, c, s, api.ProcDiagnose, api.ProcAskDiagnose, api.Empty{})
			if err != nil {
				return err
			}
			findings := doctor.Judge(answers)
			if l.format == "table" {
				err = printFindings(cmd.OutOrStdout(), findings)
			} else {
				err = l.print(cmd.OutOrStdout(), findings, nil, nil, nil)
			}
			if err == nil && doctor.Worst(findings) == doctor.Fail {
				return exitError(1)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&l.format, "format", "table", "table or json")
	s.flags(cmd, true)
	return cmd
}

// printFindings prints a line for each finding, with what to do below it, and a
// sum at the end.
func printFindings(out io.Writer, findings []doctor.Finding) error {
	count := make(map[doctor.Level]int)
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, f := range findings {
		count[f.Level]++
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Node, f.Level, f.Check, f.Found)
		if f.Do != "" {
			fmt.Fprintf(t, "\t\t\t  -> %s\n", f.Do)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d ok, %d warn, %d fail\n", count[doctor.OK], count[doctor.Warn], count[doctor.Fail])
	return err
}
