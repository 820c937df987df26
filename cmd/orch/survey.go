package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/orch-dev/orch/pkg/api"
)

func newClusterRecoverCommand(c *cli) *cobra.Command {
	req := &api.RecoverRequest{}
	var yes bool
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Go on with this manager alone, when so many are lost for good that there is no quorum",
		Long: `Go on with this manager alone, when so many are lost for good that there is no quorum.

All that is in its log is kept; what the others acknowledged and this one had not got
yet is lost. The other managers are members no more: should they come back, they are
refused, and have to join again. Tasks and traffic on this node and on the workers go
on as they are; tasks that ran on the lost machines are replaced.

It is refused while there is a quorum, or another manager answers that has more.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			survey, err := call[api.Empty, api.Survey](cmd, c, api.ProcSurvey, &api.Empty{})
			if err != nil {
				return err
			}
			if survey.Objection != "" && !req.Force {
				return fmt.Errorf("%s (or give --force)", survey.Objection)
			}
			out := cmd.OutOrStdout()
			printSurvey(out, survey)
			if !yes {
				if err := confirm(cmd.InOrStdin(), out, "Go on with this manager alone?"); err != nil {
					return err
				}
			}
			done, err := call[api.RecoverRequest, api.Survey](cmd, c, api.ProcRecover, req)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "This node is now the only manager. Its state is that of entry %d.\n\n", done.Last)
			fmt.Fprintln(out, "To have no single point of failure again, add managers: run `orch join-token manager`, or promote workers.")
			return nil
		},
	}
	cmd.Flags().BoolVar(&req.Force, "force", false, "also if the managers may have a quorum, or one has more than this")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask whether to go on")
	return cmd
}

// printSurvey says what is kept and what may be lost.
func printSurvey(out io.Writer, s *api.Survey) {
	fmt.Fprintf(out, "Kept: all of this manager's log, up to entry %d%s.\n", s.Last, written(s.Written))
	if n := s.Last - s.Committed; n > 0 {
		fmt.Fprintf(out, "      The last %d entries of it may not have been acknowledged to anybody; they count from now on.\n", n)
	}
	fmt.Fprintln(out, "Lost: what the other managers acknowledged after that, if anything.")
	if s.Objection != "" {
		fmt.Fprintf(out, "But:  %s.\n", s.Objection)
	}
	for _, m := range s.Managers {
		state := "does not answer"
		if m.Answers {
			state = fmt.Sprintf("answers, with a log up to entry %d", m.Group.Last)
		}
		fmt.Fprintf(out, "%s (%s) %s, and is no member any more.\n", m.Name, m.Addr, state)
	}
	fmt.Fprintln(out)
}

func written(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return ", written " + at.Local().Format(time.DateTime)
}

// confirm asks a yes of whoever sits at a terminal.
func confirm(in io.Reader, out io.Writer, question string) error {
	if f, ok := in.(*os.File); !ok || !term.IsTerminal(int(f.Fd())) {
		return errors.New("nothing was done: nobody can be asked here, so give --yes")
	}
	fmt.Fprint(out, question, " [y/N] ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
