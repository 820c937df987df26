package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
)

func newClusterCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Show and change what holds for the whole cluster", Args: noSuchCommand, RunE: showHelp}
	cmd.AddCommand(newClusterInspectCommand(c), newClusterUpdateCommand(c), newRotateGossipKeyCommand(c),
		newClusterBackupCommand(c), newClusterBackupKeyCommand(c), newClusterRestoreCommand(c), newClusterRecoverCommand(c))
	return cmd
}

func newClusterInspectCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "inspect",
		Short: "Show the cluster's settings",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := call[api.Empty, api.ClusterSettings](cmd, c, api.ProcClusterSettings, &api.Empty{})
			if err != nil {
				return err
			}
			return l.print(cmd.OutOrStdout(), s, []string{"Cluster", s.ID}, settingsRows(s), []string{s.ID})
		},
	}
	l.flags(cmd)
	return cmd
}

func settingsRows(s *api.ClusterSettings) [][]string {
	autolock := "off"
	if s.Autolock {
		autolock = "on"
	}
	certificates := fmt.Sprintf("good for %s, renewed after two thirds of that", days(s.CertificateLife))
	if s.External != "" {
		certificates = "good for as long as the external CA at " + s.External + " says, renewed after two thirds of that"
	}
	election := fmt.Sprintf("%v to %v", s.ElectionTimeout, 2*s.ElectionTimeout)
	if len(s.Retiming) > 0 {
		election += ", not yet on " + strings.Join(s.Retiming, ", ")
	}
	return [][]string{
		{"  Nodes", fmt.Sprintf("%d (%d managers)", s.Nodes, s.Managers)},
		{"  Pool", fmt.Sprintf("%s and %s", s.Pool, api.Pool6(s.ID))},
		{"  Lease", s.Lease.String()},
		{"  Election after", election},
		{"  Certificates", certificates},
		{"  Authority", s.Authority},
		{"  Gossip key", gossipKey(s)},
		{"  Return", returnText(s.Return)},
		{"  Autolock", autolock},
	}
}

func returnText(r api.Return) string {
	if r == api.ReturnDSR {
		return "dsr: replies go straight to clients"
	}
	return string(r) + ": replies go through the node that a client came in at"
}

func gossipKey(s *api.ClusterSettings) string {
	text := "replaced every " + days(s.GossipKeyLife)
	if !s.GossipKeySince.IsZero() {
		text += ", last on " + s.GossipKeySince.Local().Format("2006-01-02 15:04")
	}
	if s.Gossip != "" {
		text += "; " + gossipProgress(s)
	}
	return text
}

func gossipProgress(s *api.ClusterSettings) string {
	line := fmt.Sprintf("%d of %d nodes %s", s.Nodes-len(s.Rekeying), s.Nodes, s.Gossip)
	if len(s.Rekeying) > 0 {
		line += ", waiting for " + oneLine(strings.Join(s.Rekeying, ", "), 60)
	}
	return line
}

func newRotateGossipKeyCommand(c *cli) *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:   "rotate-gossip-key",
		Short: "Replace the key of the gossip between the nodes",
		Long: `Replace the key that encrypts the gossip between the nodes. First every node gets the
new one, then all use it, then the old one is dropped; at no time do two nodes not
understand each other. Nodes that are down get it from a manager when they come back.
The cluster does this by itself too: see --gossip-key-life of ` + "`orch cluster update`.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := call[api.Empty, api.Empty](cmd, c, api.ProcRotateGossipKey, &api.Empty{}); err != nil || detach {
				return err
			}
			return followSettings(cmd, c, func(s *api.ClusterSettings) (line string, done bool) {
				if s.Gossip == "" {
					return "the gossip key was replaced", true
				}
				return gossipProgress(s), false
			})
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait for the nodes")
	return cmd
}

// days is a long time in days, a short one as it is.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

func newClusterUpdateCommand(c *cli) *cobra.Command {
	var autolock, detach bool
	var election, lease, life, gossipLife time.Duration
	var ret string
	cmd := &cobra.Command{
		Use:   "update",
		Short: "Change the cluster's settings",
		Long: `Change the cluster's settings, while it runs. What no flag names stays as it is.

The managers take another election timeout one after another, the leader last: it lets
another lead first. A manager that is down takes it when it comes back. Nodes
renew certificates at once that were made for longer than they are to live now.`,
		Example: "  orch cluster update --election-timeout 1s --lease 10s   # managers far apart, or on slow disks",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, changed := &api.UpdateClusterRequest{}, cmd.Flags().Changed
			if changed("autolock") {
				req.Autolock = &autolock
			}
			if changed("election-timeout") {
				req.ElectionTimeout = &election
			}
			if changed("lease") {
				req.Lease = &lease
			}
			if changed("certificate-life") {
				req.CertificateLife = &life
			}
			if changed("gossip-key-life") {
				req.GossipKeyLife = &gossipLife
			}
			if changed("return") {
				req.Return = (*api.Return)(&ret)
			}
			res, err := call[api.UpdateClusterRequest, api.UpdateClusterResponse](cmd, c, api.ProcUpdateCluster, req)
			if err != nil {
				return err
			}
			for _, warning := range res.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", warning)
			}
			if res.UnlockKey != "" {
				printUnlockKey(cmd.OutOrStdout(), res.UnlockKey)
			}
			if req.ElectionTimeout == nil || detach {
				return nil
			}
			return awaitTimers(cmd, c)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&autolock, "autolock", false, "managers need an unlock key after a restart")
	f.DurationVar(&election, "election-timeout", api.DefaultElectionTimeout, "the leader's silence after which managers choose another, at most twice as long; longer for slow disks and long links")
	f.DurationVar(&lease, "lease", api.DefaultLease, "how long a node may be silent before its tasks are replaced")
	f.DurationVar(&life, "certificate-life", 0, "how long nodes' and users' certificates are good, which are renewed after two thirds of it")
	f.DurationVar(&gossipLife, "gossip-key-life", api.DefaultGossipKeyLife, "how long the key of the gossip between the nodes is used, until it is replaced")
	f.StringVar(&ret, "return", string(api.ReturnTunnel), "how replies of published ports go to clients: tunnel, through the node of entry; dsr, straight, where `orch doctor` finds that the network lets them pass")
	f.BoolVarP(&detach, "detach", "d", false, "do not wait for the managers to take another election timeout")
	return cmd
}

// settingsPoll is how often a command asks how far a change is.
const settingsPoll = 250 * time.Millisecond

// awaitTimers shows how far it is until all managers that are up go by the election
// timeout.
func awaitTimers(cmd *cobra.Command, c *cli) error {
	return followSettings(cmd, c, func(s *api.ClusterSettings) (line string, done bool) {
		if len(s.Retiming) == 0 {
			return fmt.Sprintf("the managers choose another leader after %v to %v of silence", s.ElectionTimeout, 2*s.ElectionTimeout), true
		}
		return fmt.Sprintf("%d of %d managers go by the election timeout, waiting for %s",
			s.Managers-len(s.Retiming), s.Managers, oneLine(strings.Join(s.Retiming, ", "), 60)), false
	})
}

// followSettings shows what progress says of the settings until it is done.
func followSettings(cmd *cobra.Command, c *cli, progress func(*api.ClusterSettings) (line string, done bool)) error {
	return follow(cmd, func() (line string, done bool, err error) {
		s, err := call[api.Empty, api.ClusterSettings](cmd, c, api.ProcClusterSettings, &api.Empty{})
		if err != nil {
			return "", false, err
		}
		line, done = progress(s)
		return line, done, nil
	})
}

// follow shows what look says until it is done.
func follow(cmd *cobra.Command, look func() (line string, done bool, err error)) error {
	out, said := cmd.OutOrStdout(), ""
	for {
		line, done, err := look()
		if err != nil && api.CodeOf(err) != api.CodeUnavailable { // a leader that has just changed is asked again
			return err
		}
		if err == nil && line != said {
			said = line
			showLine(out, line, done)
		}
		if err == nil && done {
			return nil
		}
		if err := pauseFor(cmd.Context(), settingsPoll); err != nil {
			return err
		}
	}
}

// showLine writes a line of progress, over the one before where there is a terminal.
func showLine(out io.Writer, line string, last bool) {
	switch {
	case !isTerminal(out):
		fmt.Fprintln(out, line)
	case last:
		fmt.Fprintln(out, "\r\x1b[K"+line)
	default:
		fmt.Fprint(out, "\r\x1b[K", line)
	}
}

func pauseFor(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
