package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// defaultGrace is how long nodes that are down are waited for.
	defaultGrace = 24 * time.Hour
	// rotationPoll is how often `orch ca rotate` asks how far it is.
	rotationPoll = 250 * time.Millisecond
)

func newAuthorityCommand(c *cli) *cobra.Command {
	l, asPEM := &list{}, false
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Show or replace the authority that signs the nodes' certificates",
		Args:  noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := call[api.Empty, api.AuthorityStatus](cmd, c, api.ProcAuthority, &api.Empty{})
			if err != nil {
				return err
			}
			if asPEM {
				return pem.Encode(cmd.OutOrStdout(), &pem.Block{Type: "CERTIFICATE", Bytes: status.Authority})
			}
			rows, err := authorityRows(status)
			if err != nil {
				return err
			}
			return l.print(cmd.OutOrStdout(), status, []string{"Authority", authorityID(status.Authority)}, rows, []string{authorityID(status.Authority)})
		},
	}
	l.flags(cmd)
	cmd.Flags().BoolVar(&asPEM, "pem", false, "the authority's certificate alone, as PEM")
	cmd.AddCommand(newAuthorityRotateCommand(c), newAuthorityFinishCommand(c))
	return cmd
}

func authorityID(certificate []byte) string { return (&api.Authority{Certificate: certificate}).ID() }

func authorityRows(s *api.AuthorityStatus) ([][]string, error) {
	cert, err := x509.ParseCertificate(s.Authority)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificate: %w", err)
	}
	day := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }
	rows := [][]string{
		{"  Name", cert.Subject.String()},
		{"  Good", "until " + day(cert.NotAfter)},
	}
	if s.External != "" && s.Next == nil {
		rows = append(rows, []string{"  Signs", "outside of the cluster, at " + s.External})
	}
	if s.Next == nil {
		return append(rows, []string{"  State", "signs"}), nil
	}
	return append(rows,
		[]string{"  State", "is being replaced since " + day(s.Started)},
		[]string{"Next authority", authorityID(s.Next)},
		[]string{"  Nodes that have its certificate", fmt.Sprintf("%d of %d", s.Nodes-len(s.Waiting), s.Nodes)},
		[]string{"  Waits for", strings.Join(s.Waiting, ", ")},
		[]string{"  Users that do not have it", strings.Join(s.Users, ", ")},
		[]string{"  The old is dropped", "when all have it; without nodes that are down, and without users, on " + day(s.Until)},
	), nil
}

func newAuthorityRotateCommand(c *cli) *cobra.Command {
	req, detach := &api.RotateAuthorityRequest{}, false
	next, cross := &outside{}, ""
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the authority, with nothing interrupted",
		Long: `Replace the authority that signs the nodes' certificates, with a new key. The old one
signs the new one, every node gets a certificate of it, and then the old one is
dropped. No connection, task or packet is interrupted. Join tokens that were printed
before are good no longer then.

Nodes that are down are waited for: one that comes back within --grace gets its
certificate then. One that comes back later has to leave and join again. So are users:
they get theirs when they use the cluster from elsewhere, and later need a new file
(` + "`orch user renew`" + `). Use --grace 0s when the old key may be in others' hands.

With --external-ca the next authority is one outside of the cluster, which has to take
managers' certificates of the old authority until all have renewed. To replace one that
is outside already, have it sign the certificate of the next (its name and its key), and
give that with --cross-cert.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if req.Next, err = next.authority(); err != nil {
				return err
			}
			if cross != "" {
				crossed, err := readCertificates(cross)
				if err != nil {
					return fmt.Errorf("--cross-cert: %w", err)
				}
				req.Cross = crossed[0]
			}
			status, err := call[api.RotateAuthorityRequest, api.AuthorityStatus](cmd, c, api.ProcRotateAuthority, req)
			if err != nil || detach {
				return err
			}
			return awaitRotation(cmd, c, status)
		},
	}
	next.flags(cmd)
	cmd.Flags().StringVar(&cross, "cross-cert", "", "the next authority's certificate as the external one that is to be replaced signed it, PEM")
	cmd.Flags().DurationVar(&req.Grace, "grace", defaultGrace, "how long nodes that are down, and users, are waited for")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the nodes")
	return cmd
}

// awaitRotation shows how far it is until all that can be waited for has renewed.
func awaitRotation(cmd *cobra.Command, c *cli, status *api.AuthorityStatus) error {
	out, said := cmd.OutOrStdout(), ""
	live := isTerminal(out)
	for {
		if line := rotationProgress(status); line != said {
			said = line
			if live {
				fmt.Fprint(out, "\r\x1b[K", line)
			} else {
				fmt.Fprintln(out, line)
			}
		}
		if rest := len(status.Down) + len(status.Users); status.Next == nil || rest > 0 && len(status.Waiting) == len(status.Down) {
			break
		}
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-time.After(rotationPoll):
		}
		next, err := call[api.Empty, api.AuthorityStatus](cmd, c, api.ProcAuthority, &api.Empty{})
		if err != nil && api.CodeOf(err) != api.CodeUnavailable { // a leader that has just changed is asked again
			return err
		}
		if err == nil {
			status = next
		}
	}
	if live {
		fmt.Fprintln(out)
	}
	if status.Next != nil {
		fmt.Fprintf(out, "The old authority stays good until %s", status.Until.Local().Format("2006-01-02 15:04"))
		if len(status.Down) > 0 {
			fmt.Fprintf(out, ", for nodes that are down: %s", strings.Join(status.Down, ", "))
		}
		if len(status.Users) > 0 {
			fmt.Fprintf(out, ", for users, who renew when they use orch: %s", strings.Join(status.Users, ", "))
		}
		fmt.Fprintln(out, ".\n`orch ca finish` drops it at once.")
	}
	return nil
}

func rotationProgress(s *api.AuthorityStatus) string {
	if s.Next == nil {
		return "all nodes have certificates of the new authority: " + authorityID(s.Authority)
	}
	line := fmt.Sprintf("%d of %d nodes have a certificate of the new authority", s.Nodes-len(s.Waiting), s.Nodes)
	if len(s.Waiting) > 0 {
		line += ", waiting for " + oneLine(strings.Join(s.Waiting, ", "), 60)
	}
	return line
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func newAuthorityFinishCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "finish",
		Short: "Drop the old authority at once, without the nodes that are not ready",
		Long: `End a rotation at once. Nodes that do not have a certificate of the new authority yet
(see ` + "`orch ca`" + `) are no members any more then: they have to leave and join again. Users
that do not have one need a new file: ` + "`orch user renew`" + `.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := call[api.Empty, api.AuthorityStatus](cmd, c, api.ProcFinishRotation, &api.Empty{})
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), "the cluster's authority is", authorityID(status.Authority))
			}
			return err
		},
	}
}
