package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
)

func newNodeCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "List nodes and change what they do", Args: noSuchCommand, RunE: showHelp}
	cmd.AddCommand(newNodeListCommand(c), newNodeInspectCommand(c), newNodeTasksCommand(c), newNodeUpdateCommand(c),
		newPromoteCommand(c), newDemoteCommand(c), newDrainCommand(c), newActivateCommand(c), newNodeRemoveCommand(c))
	return cmd
}

func newNodeListCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the nodes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			nodes, err := call[api.Empty, api.NodeList](cmd, c, api.ProcNodes, &api.Empty{})
			if err != nil {
				return err
			}
			var rows [][]string
			var keys []string
			for _, n := range nodes.Nodes {
				role := string(n.Role)
				if n.Leader {
					role += " (leader)"
				}
				rows = append(rows, []string{shortID(n.ID), n.Hostname, role, string(n.State), string(n.Availability), n.Addr.String(), n.Info.EngineVersion, n.Info.Datapath, labels(n.Labels)})
				keys = append(keys, string(n.ID))
			}
			return l.print(cmd.OutOrStdout(), nodes.Nodes, []string{"ID", "NAME", "ROLE", "STATE", "AVAILABILITY", "ADDRESS", "ENGINE", "DATA PATH", "LABELS"}, rows, keys)
		},
	}
	l.flags(cmd)
	return cmd
}

func labels(m map[string]string) string {
	var out []string
	for _, k := range api.SortedKeys(m) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}

func newNodeInspectCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "inspect NODE...",
		Short: "Show all that is known of nodes, as JSON",
		Args:  someArgs("names or IDs of nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			found, err := call[api.NodesRequest, api.NodeList](cmd, c, api.ProcNodes, &api.NodesRequest{Nodes: args})
			if err != nil {
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(found.Nodes)
		},
	}
}

func newNodeTasksCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ps NODE",
		Short: "List the tasks on a node",
		Args:  exactArgs(1, "the name or ID of a node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printTasks(cmd, c, l, &api.TasksRequest{Node: args[0]})
		},
	}
	l.flags(cmd)
	return cmd
}

func newNodeUpdateCommand(c *cli) *cobra.Command {
	var role, availability string
	var add, remove []string
	cmd := &cobra.Command{
		Use:   "update NODE",
		Short: "Set a node's role, availability and labels",
		Args:  exactArgs(1, "the name or ID of a node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &api.UpdateNodeRequest{
				Node: args[0], Role: api.Role(role), Availability: api.Availability(availability),
				RemoveLabels: remove, AddLabels: make(map[string]string),
			}
			for _, label := range add {
				k, v, ok := strings.Cut(label, "=")
				if !ok || k == "" {
					return fmt.Errorf("--label-add %q: give KEY=VALUE", label)
				}
				req.AddLabels[k] = v
			}
			return updateNode(cmd, c, req)
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "worker or manager, see `orch node promote` and `demote`")
	cmd.Flags().StringVar(&availability, "availability", "", "active, pause (takes no new tasks) or drain (its tasks move elsewhere)")
	cmd.Flags().StringArrayVar(&add, "label-add", nil, "add or change a label, KEY=VALUE")
	cmd.Flags().StringArrayVar(&remove, "label-rm", nil, "remove a label, KEY")
	return cmd
}

func updateNode(cmd *cobra.Command, c *cli, req *api.UpdateNodeRequest) error {
	_, err := call[api.UpdateNodeRequest, api.Empty](cmd, c, api.ProcUpdateNode, req)
	return err
}

// changeNodes is a command that changes each of the nodes that it is given, and then
// waits until that shows.
func changeNodes(c *cli, use, short, long string, change api.UpdateNodeRequest, shows func(*cobra.Command, string) error) *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use: use + " NODE...", Short: short, Long: long,
		Args: someArgs("names or IDs of nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, node := range args {
				req := change
				req.Node = node
				if err := updateNode(cmd, c, &req); err != nil {
					return err
				}
				if detach {
					continue
				}
				if err := shows(cmd, node); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait until it is done")
	return cmd
}

func newPromoteCommand(c *cli) *cobra.Command {
	return changeNodes(c, "promote", "Make nodes managers",
		"Make nodes managers. Each gets the cluster's state first and then its vote. What runs on it goes on.",
		api.UpdateNodeRequest{Role: api.RoleManager}, func(cmd *cobra.Command, ref string) error {
			return followNode(cmd, c, ref, func(n *api.NodeEntry) (string, bool) {
				if n.Voter {
					return n.Hostname + " is a manager", true
				}
				return n.Hostname + " gets the cluster's state", false
			})
		})
}

func newDemoteCommand(c *cli) *cobra.Command {
	return changeNodes(c, "demote", "Make managers workers",
		`Make managers workers. A leader lets another manager lead first. What runs on the
node goes on. It is refused where too few of the remaining managers would answer.`,
		api.UpdateNodeRequest{Role: api.RoleWorker}, func(cmd *cobra.Command, ref string) error {
			return followNode(cmd, c, ref, func(n *api.NodeEntry) (string, bool) {
				return n.Hostname + " is a worker", !n.Voter
			})
		})
}

func newDrainCommand(c *cli) *cobra.Command {
	return changeNodes(c, "drain", "Move the tasks of nodes elsewhere",
		"Move the tasks of nodes elsewhere, each once another has taken its place, and give them no more.",
		api.UpdateNodeRequest{Availability: api.AvailabilityDrain}, func(cmd *cobra.Command, ref string) error {
			return follow(cmd, func() (string, bool, error) {
				left, err := tasksOn(cmd, c, ref)
				if err != nil || len(left) == 0 {
					return ref + " is empty", true, err
				}
				return fmt.Sprintf("%s: %d tasks left, %s", ref, len(left), oneLine(strings.Join(left, ", "), 60)), false, nil
			})
		})
}

func newActivateCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "activate NODE...",
		Short: "Give nodes tasks again, after a drain",
		Args:  someArgs("names or IDs of nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, node := range args {
				if err := updateNode(cmd, c, &api.UpdateNodeRequest{Node: node, Availability: api.AvailabilityActive}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	return cmd
}

func newNodeRemoveCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rm NODE...",
		Short: "Remove nodes that are lost",
		Long: `Remove nodes that are lost: their certificates are good for nothing from then on.
A node that is up leaves by itself, with orch leave. What ran on one that comes
back after it was removed ends with orch leave --force there.`,
		Args: someArgs("names or IDs of nodes"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, node := range args {
				if _, err := call[api.RemoveNodeRequest, api.Empty](cmd, c, api.ProcRemoveNode, &api.RemoveNodeRequest{Node: node, Force: force}); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), node)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also nodes that are up")
	return cmd
}

// followNode shows what progress says of a node until it is done.
func followNode(cmd *cobra.Command, c *cli, ref string, progress func(*api.NodeEntry) (line string, done bool)) error {
	return follow(cmd, func() (line string, done bool, err error) {
		found, err := call[api.NodesRequest, api.NodeList](cmd, c, api.ProcNodes, &api.NodesRequest{Nodes: []string{ref}})
		if err != nil {
			return "", false, err
		}
		line, done = progress(&found.Nodes[0])
		return line, done, nil
	})
}

// tasksOn names the tasks that a node still has something of.
func tasksOn(cmd *cobra.Command, c *cli, ref string) ([]string, error) {
	tasks, err := call[api.TasksRequest, api.TaskList](cmd, c, api.ProcTasks, &api.TasksRequest{Node: ref})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range slices.DeleteFunc(tasks.Tasks, func(t api.TaskEntry) bool { return !holdsOn(t) }) {
		names = append(names, t.Name())
	}
	return names, nil
}
