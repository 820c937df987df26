package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/doctor"
)

func newInitCommand(c *cli) *cobra.Command {
	req, external, once := &api.InitRequest{}, &outside{}, &showOnce{}
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new cluster with this node as its first manager",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Authority, err = external.authority(); err != nil {
				return err
			}
			if req.Shown, err = once.read(); err != nil {
				return err
			}
			if req.Authority == nil && req.ClientCert != nil {
				return fmt.Errorf("--ca-client-cert is shown to an authority outside of the cluster: name it with --external-ca")
			}
			res, err := call[api.InitRequest, api.InitResponse](cmd, c, api.ProcInit, req)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "This node (%s) is now the manager of a new cluster.\n\n", shortID(res.NodeID))
			fmt.Fprintf(out, "To add a worker, run on it, with orch daemon running:\n\n    orch join %s\n\n", res.Tokens.Worker)
			fmt.Fprintln(out, "To add a manager, run `orch join-token manager` here and follow what it says.")
			if res.UnlockKey != "" {
				fmt.Fprintln(out)
				printUnlockKey(out, res.UnlockKey)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&req.AdvertiseAddr, "advertise-addr", "", "this node's address for other nodes (default: the daemon's, or the one of the default route)")
	cmd.Flags().BoolVar(&req.Autolock, "autolock", false, "managers need an unlock key, which is printed, after a restart")
	external.flags(cmd)
	once.flags(cmd)
	cmd.Flags().StringVar((*string)(&req.Return), "return", "", "how replies of published ports go to clients: tunnel (default) or dsr, see `orch cluster update`")
	cmd.Flags().StringVar(&req.Pool, "pool", "", "where task addresses and virtual IPs come from (default "+api.DefaultPool+")")
	return cmd
}

func newJoinCommand(c *cli) *cobra.Command {
	req := &api.JoinRequest{}
	cmd := &cobra.Command{
		Use:   "join TOKEN@HOST:PORT",
		Short: "Join this node to a cluster, as the role that the token is for",
		Args:  exactArgs(1, "a join token, as `orch join-token worker` prints it on a manager"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Token = args[0]
			res, err := call[api.JoinRequest, api.JoinResponse](cmd, c, api.ProcJoin, req)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "This node (%s) joined the cluster as a %s.\n", shortID(res.NodeID), res.Role)
			return nil
		},
	}
	cmd.Flags().StringVar(&req.AdvertiseAddr, "advertise-addr", "", "this node's address for other nodes (default: the daemon's, or the one of the default route)")
	return cmd
}

func newJoinTokenCommand(c *cli) *cobra.Command {
	var quiet, rotate bool
	cmd := &cobra.Command{
		Use:       "join-token worker|manager",
		Short:     "Print the command that joins a node",
		Long:      "Print the command that joins a node. Who has a token can make a machine a node of that role: keep it as a password, and rotate it when others may have seen it.",
		ValidArgs: []string{"worker", "manager"},
		Args:      exactArgs(1, "the role of the node that is to join: worker or manager"),
		RunE: func(cmd *cobra.Command, args []string) error {
			role := api.Role(args[0])
			if role != api.RoleWorker && role != api.RoleManager {
				return fmt.Errorf("unknown role %q: give worker or manager", args[0])
			}
			tokens, err := joinTokens(cmd, c, role, rotate)
			if err != nil {
				return err
			}
			token := tokens.Worker
			if role == api.RoleManager {
				token = tokens.Manager
			}
			out := cmd.OutOrStdout()
			if quiet {
				fmt.Fprintln(out, token)
				return nil
			}
			fmt.Fprintf(out, "To add a %s, run on it, with orch daemon running:\n\n    orch join %s\n\n", role, token)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "the token alone")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make a new token: the old one is good no longer, the nodes that joined with it stay")
	return cmd
}

func joinTokens(cmd *cobra.Command, c *cli, role api.Role, rotate bool) (*api.JoinTokens, error) {
	if rotate {
		return call[api.RotateTokenRequest, api.JoinTokens](cmd, c, api.ProcRotateToken, &api.RotateTokenRequest{Role: role})
	}
	return call[api.Empty, api.JoinTokens](cmd, c, api.ProcJoinTokens, &api.Empty{})
}

// exactArgs asks for n arguments and says what they are if they are not there.
func exactArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%s takes %s (see `%s --help`)", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

// someArgs asks for one argument or more and says what they are if there is none.
func someArgs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("%s takes %s (see `%s --help`)", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

// noSuchCommand refuses what is none of a command's own commands.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q for %q (see `%s --help`)", args[0], cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

func newInfoCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show this node and its cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := call[api.Empty, api.Info](cmd, c, api.ProcInfo, &api.Empty{})
			if err != nil {
				return err
			}
			err = l.print(cmd.OutOrStdout(), info, []string{"Node", info.Node.Hostname}, infoRows(info), []string{string(info.Node.ID)})
			if err == nil && l.format == "table" && !l.quiet && info.Managers > 0 && api.AdviseManagers(info.Managers) != "" {
				err = printQuorums(cmd.OutOrStdout(), info.Managers)
			}
			return err
		},
	}
	l.flags(cmd)
	return cmd
}

// quorum says how many managers there are, and how many of them may fail.
func quorum(info *api.Info) string {
	line := fmt.Sprintf("%d, quorum %d, failures tolerated %d", info.Managers, api.Quorum(info.Managers), api.Tolerates(info.Managers))
	if r := info.Raft; r != nil && r.Voters != info.Managers {
		line += fmt.Sprintf("; %d have a vote", r.Voters)
	}
	if advice := api.AdviseManagers(info.Managers); advice != "" {
		line += " (" + advice + ")"
	}
	return line
}

// printQuorums compares the number of managers with those around it.
func printQuorums(w io.Writer, managers int) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "\nMANAGERS\tQUORUM\tFAILURES TOLERATED\t")
	for n := max(1, managers-1); n <= managers+3; n++ {
		here := ""
		if n == managers {
			here = "this cluster"
		}
		fmt.Fprintf(t, "%d\t%d\t%d\t%s\n", n, api.Quorum(n), api.Tolerates(n), here)
	}
	return t.Flush()
}

func infoRows(info *api.Info) [][]string {
	n := &info.Node
	engine := n.Info.EngineVersion
	if engine == "" {
		engine = "does not answer"
	}
	rows := [][]string{
		{"  ID", string(n.ID)},
		{"  Version", n.Info.OrchVersion},
		{"  Kernel", n.Info.Kernel + ", " + n.Info.OS + "/" + n.Info.Arch},
		{"  Docker Engine", engine},
		{"  CPUs, memory", fmt.Sprintf("%d, %.1f GiB", n.Info.CPUs, float64(n.Info.MemoryBytes)/(1<<30))},
	}
	if info.ClusterID == "" {
		return append(rows, []string{"Cluster", "none: use orch init or orch join"})
	}
	if info.LeftBehind != "" {
		return append(rows, []string{"Cluster", info.ClusterID}, []string{"  Left behind", info.LeftBehind})
	}
	if info.Locked {
		return append(rows, []string{"Cluster", info.ClusterID}, []string{"  Locked", "give it the cluster's unlock key with orch unlock"})
	}
	rows = append(rows,
		[]string{"  Role", string(n.Role)},
		[]string{"  Address", n.APIAddr()},
		[]string{"  Data path", n.Info.Datapath},
		[]string{"  Encryption", describeEncryption(n)},
	)
	for _, a := range doctor.DescribeAttachments(info.Attachments) {
		rows = append(rows, []string{"    " + a.Devices, a.Programs})
	}
	rows = append(rows,
		[]string{"  Certificate", "until " + info.CertificateEnds.Local().Format("2006-01-02 15:04")},
		[]string{"Cluster", info.ClusterID},
		[]string{"  Nodes", fmt.Sprint(info.Nodes)},
		[]string{"  Managers", quorum(info)},
		[]string{"  Pool", fmt.Sprintf("%s and %s", info.Pool, api.Pool6(info.ClusterID))},
		[]string{"  Lease", info.Lease.String()},
		[]string{"  Stacks, services, tasks", fmt.Sprintf("%d, %d, %d", info.Stacks, info.Services, info.Tasks)},
	)
	if r := info.Raft; r != nil {
		leader := info.Leader
		if leader == "" {
			leader = "none (no quorum)"
		}
		rows = append(rows,
			[]string{"  Leader", leader},
			[]string{"  Raft", fmt.Sprintf("%s in term %d, index %d", r.State, r.Term, r.Applied)},
			[]string{"  Election after", fmt.Sprintf("%v to %v", info.Election, 2*info.Election)},
		)
		if warning := api.DiskWarning(n.Hostname, info.Disk, info.Election); warning != "" {
			rows = append(rows, []string{"  Slow disk", warning})
		}
	}
	return rows
}

// describeEncryption says what a node can do for networks that are encrypted.
func describeEncryption(n *api.Node) string {
	switch lacks := n.LacksEncryption(); {
	case lacks != "":
		return "none: " + lacks
	case len(n.Info.Encryption.Keys) == 0:
		return "WireGuard; no network asks for it"
	default:
		return "WireGuard"
	}
}
