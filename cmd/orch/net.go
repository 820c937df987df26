package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
)

func newNetCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "net",
		Short: "See what the nodes' kernels do with packets, and why",
		Long: `See what the nodes' kernels do with packets, and why. What is shown is read from
the kernel: it is what happens, not what should.`,
	}
	cmd.AddCommand(newNetListCommand(c), newNetFlowsCommand(c), newNetDropsCommand(c), newNetTraceCommand(c))
	return cmd
}

// scope is which nodes a command asks. Only this node's own answer needs no
// manager.
type scope struct {
	node string
	all  bool
}

func (s *scope) flags(cmd *cobra.Command, all bool) {
	cmd.Flags().BoolVarP(&s.all, "all", "a", all, "ask every node (--all=false: this node alone, without asking a manager)")
	cmd.Flags().StringVar(&s.node, "node", "", "ask one node, by name or ID")
}

// gather has the nodes in scope answer: one is the procedure of a node, all that
// of managers. Nodes that do not answer are told on the error output.
func gather[Req, Res any](cmd *cobra.Command, c *cli, s *scope, one, all string, req Req) (*api.Answers[Res], error) {
	elsewhere, err := c.elsewhere() // there is no node of its own there
	if err != nil {
		return nil, err
	}
	if !s.all && s.node == "" && !elsewhere {
		info, err := call[api.Empty, api.Info](cmd, c, api.ProcInfo, &api.Empty{})
		if err != nil {
			return nil, err
		}
		res, err := call[Req, Res](cmd, c, one, &req)
		if err != nil {
			return nil, err
		}
		return &api.Answers[Res]{Nodes: []api.Answer[Res]{{Node: info.Node.ID, Hostname: info.Node.Hostname, Addr: info.Node.Addr, Answer: res}}}, nil
	}
	answers, err := call[api.Ask[Req], api.Answers[Res]](cmd, c, all, &api.Ask[Req]{Node: s.node, Request: req})
	if err != nil {
		return nil, err
	}
	for _, a := range answers.Nodes {
		if a.Answer == nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "orch: %s %s\n", a.Hostname, a.Error)
		}
	}
	return answers, nil
}

// answered are the rows of those nodes that answered, with the node's name first.
func answered[Res any](answers *api.Answers[Res], rows func(*Res) [][]string) (all [][]string) {
	for _, a := range answers.Nodes {
		if a.Answer == nil {
			continue
		}
		for _, row := range rows(a.Answer) {
			all = append(all, append([]string{a.Hostname}, row...))
		}
	}
	return all
}

func newNetListCommand(c *cli) *cobra.Command {
	l, s := &list{}, &scope{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List published ports and virtual IPs with their backends, as this node's kernel has them",
		Long: `List published ports and virtual IPs with their backends, as the kernel has them.

RETURN is how replies go to clients outside when the backend is on another node:
through this one, or straight (dsr). SHARE is the part of new flows that a backend gets, FLOWS those that the node
remembers, NEW and PACKETS what clients sent through it since the backend is there.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answers, err := gather[api.Empty, api.NetFrontends](cmd, c, s, api.ProcNetFrontends, api.ProcAskFrontends, api.Empty{})
			if err != nil {
				return err
			}
			return l.print(cmd.OutOrStdout(), answers.Nodes, frontendHeading, answered(answers, frontendRows), nil)
		},
	}
	cmd.Flags().StringVar(&l.format, "format", "table", "table or json")
	s.flags(cmd, false)
	return cmd
}

var frontendHeading = []string{"NODE", "FRONTEND", "SERVICE", "RETURN", "BACKEND", "TASK", "ON", "STATE", "SHARE", "FLOWS", "NEW", "PACKETS"}

func frontendRows(list *api.NetFrontends) (rows [][]string) {
	for _, f := range list.Frontends {
		key := frontendText(f.Key())
		if len(f.Backends) == 0 {
			rows = append(rows, []string{key, f.Service, string(f.Return), "none"})
		}
		for _, b := range f.Backends {
			rows = append(rows, []string{
				key, f.Service, string(f.Return), backendText(b), b.Task, b.Node, string(b.State), percent(b.Share),
				fmt.Sprint(b.Flows), fmt.Sprint(b.NewFlows), fmt.Sprint(b.Packets),
			})
		}
	}
	return rows
}

func frontendText(k api.FrontendKey) string {
	switch {
	case k.Virtual():
		return k.Addr.String()
	case k.Addr.IsUnspecified():
		return fmt.Sprintf("*:%d/%s", k.Port, k.Protocol)
	}
	return fmt.Sprintf("%s:%d/%s", k.Addr, k.Port, k.Protocol)
}

func backendText(b api.NetBackend) string {
	if b.Port == 0 {
		return b.Addr.String()
	}
	return netip.AddrPortFrom(b.Addr, b.Port).String()
}

func percent(share float64) string { return fmt.Sprintf("%.1f%%", 100*share) }

func newNetFlowsCommand(c *cli) *cobra.Command {
	l, s := &list{}, &scope{}
	req := api.NetFlowsRequest{}
	live := &follower{}
	var client string
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "List the flows that this node's kernel remembers, the latest first",
		Long: `List the flows that the kernel remembers, the latest first. HERE says what the
node is to a flow: ingress, where the client's packets enter the cluster; backend,
where the task runs that serves it; or both. VERDICT is what becomes of the client's
packets there: delivered into a task, or forwarded-tunnel, to the backend's node.

With --follow those that are new, or in another state, are told as they come.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if client != "" {
				if req.Client, err = netip.ParseAddr(client); err != nil {
					return fmt.Errorf("--client %q: give an address", client)
				}
			}
			ask := func() (*api.Answers[api.NetFlows], error) {
				return gather[api.NetFlowsRequest, api.NetFlows](cmd, c, s, api.ProcNetFlows, api.ProcAskFlows, req)
			}
			if live.on {
				return live.follow(cmd, l.format, flowHeading, func() ([][]string, error) {
					answers, err := ask()
					if err != nil {
						return nil, err
					}
					return answered(answers, flowRows), nil
				}, flowChanged)
			}
			answers, err := ask()
			if err != nil {
				return err
			}
			for _, a := range answers.Nodes {
				if a.Answer != nil && a.Answer.Total > len(a.Answer.Flows) {
					fmt.Fprintf(cmd.ErrOrStderr(), "orch: %s: the latest %d of %d flows (see --limit)\n", a.Hostname, len(a.Answer.Flows), a.Answer.Total)
				}
			}
			return l.print(cmd.OutOrStdout(), answers.Nodes, flowHeading, answered(answers, flowRows), nil)
		},
	}
	f := cmd.Flags()
	f.StringVar(&l.format, "format", "table", "table or json")
	f.StringVar(&req.Service, "service", "", "only those of a service, by its full name")
	f.StringVar(&client, "client", "", "only those of a client, by its address")
	f.StringVar(&req.Verdict, "verdict", "", "only those whose packets are delivered here, or forwarded-tunnel")
	f.IntVar(&req.Limit, "limit", 1000, "at most so many of each node")
	live.flags(cmd)
	s.flags(cmd, false)
	return cmd
}

var flowHeading = []string{"NODE", "HERE", "PROTOCOL", "CLIENT", "FRONTEND", "SERVICE", "BACKEND", "TASK", "VERDICT", "STATE", "IDLE"}

// flowChanged tells a flow that is new or in another state from one that goes on.
func flowChanged(row []string) (key, value string) {
	idle := len(row) - 1
	return strings.Join(row[:idle-1], " "), row[idle-1]
}

func flowRows(list *api.NetFlows) (rows [][]string) {
	for _, f := range list.Flows {
		here := "ingress"
		switch {
		case f.Ingress && f.Serving:
			here = "both"
		case f.Serving:
			here = "backend"
		}
		rows = append(rows, []string{
			here, string(f.Protocol), f.Client.String(), f.Frontend.String(), f.Service, f.Backend.String(), f.Task, f.Verdict, f.State, f.Idle.String(),
		})
	}
	return rows
}

func newNetDropsCommand(c *cli) *cobra.Command {
	l, s := &list{}, &scope{}
	live := &follower{}
	cmd := &cobra.Command{
		Use:   "drops",
		Short: "Count the packets that the nodes' kernels dropped, by reason, with the last of each",
		Long: `Count the packets that the nodes' kernels dropped, by reason, with the last of each.
With --follow each reason is told again when there are more.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ask := func() (*api.Answers[api.NetDrops], error) {
				return gather[api.Empty, api.NetDrops](cmd, c, s, api.ProcNetDrops, api.ProcAskDrops, api.Empty{})
			}
			if live.on {
				return live.follow(cmd, l.format, dropHeading, func() ([][]string, error) {
					answers, err := ask()
					if err != nil {
						return nil, err
					}
					return answered(answers, dropRows), nil
				}, dropChanged)
			}
			answers, err := ask()
			if err != nil {
				return err
			}
			rows := answered(answers, dropRows)
			if len(rows) == 0 && l.format == "table" {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing was dropped")
				return nil
			}
			return l.print(cmd.OutOrStdout(), answers.Nodes, dropHeading, rows, nil)
		},
	}
	cmd.Flags().StringVar(&l.format, "format", "table", "table or json")
	live.flags(cmd)
	s.flags(cmd, true)
	return cmd
}

var dropHeading = []string{"NODE", "REASON", "PACKETS", "BYTES", "MEANING", "LAST"}

// dropChanged tells whether there are more drops of a reason.
func dropChanged(row []string) (key, value string) { return row[0] + " " + row[1], row[2] }

func dropRows(list *api.NetDrops) (rows [][]string) {
	for _, d := range list.Drops {
		if d.Packets > 0 {
			rows = append(rows, []string{d.Reason, fmt.Sprint(d.Packets), fmt.Sprint(d.Bytes), d.Meaning, exampleText(d.Last)})
		}
	}
	return rows
}

func exampleText(e *api.NetExample) string {
	if e == nil {
		return ""
	}
	end := func(a netip.AddrPort) string {
		if a.Port() == 0 {
			return a.Addr().String()
		}
		return a.String()
	}
	return fmt.Sprintf("%v ago on %s: %s %s -> %s, %d bytes",
		max(0, e.Ago).Round(time.Second), e.Device, e.Protocol, end(e.Source), end(e.Destination), e.Length)
}

func newNetTraceCommand(c *cli) *cobra.Command {
	l, s := &list{}, &scope{}
	cmd := &cobra.Command{
		Use:   "trace CLIENT[:PORT] [ADDRESS:]PORT[/udp]",
		Short: "Say what each node would do with a client's packet",
		Long: `Say what each node would do with a client's packet to a port: which frontend takes
it, which backend it goes to, by which way, and how the reply comes back. Nothing
is sent. Without ADDRESS each node is asked about its own. The client may be a
task, by its address; its own node then says what happens.`,
		Example: `  orch net trace 203.0.113.9:51000 8080
  orch net trace 10.128.0.5 10.128.0.2:5432`,
		Args: exactArgs(2, "a client and a port, for instance 203.0.113.9:51000 8080"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := parseTrace(args[0], args[1])
			if err != nil {
				return err
			}
			answers, err := gather[api.NetTraceRequest, api.NetTrace](cmd, c, s, api.ProcNetTrace, api.ProcAskTrace, *req)
			if err != nil {
				return err
			}
			return l.print(cmd.OutOrStdout(), answers.Nodes, traceHeading, answered(answers, traceRows), nil)
		},
	}
	cmd.Flags().StringVar(&l.format, "format", "table", "table or json")
	s.flags(cmd, true)
	return cmd
}

func parseTrace(client, dest string) (*api.NetTraceRequest, error) {
	req := &api.NetTraceRequest{Protocol: api.TCP}
	var err error
	if req.Client, err = netip.ParseAddrPort(client); err != nil {
		addr, err := netip.ParseAddr(client)
		if err != nil {
			return nil, fmt.Errorf("client %q: give ADDRESS or ADDRESS:PORT", client)
		}
		req.Client = netip.AddrPortFrom(addr, 0)
	}
	port, protocol, ok := strings.Cut(dest, "/")
	if ok {
		req.Protocol = api.Protocol(protocol)
	}
	if req.Protocol != api.TCP && req.Protocol != api.UDP {
		return nil, fmt.Errorf("destination %q: the protocol is tcp or udp", dest)
	}
	if to, err := netip.ParseAddrPort(port); err == nil {
		req.Addr, req.Port = to.Addr(), to.Port()
		return req, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return nil, fmt.Errorf("destination %q: give PORT, PORT/udp or ADDRESS:PORT", dest)
	}
	req.Port = uint16(n)
	return req, nil
}

var traceHeading = []string{"NODE", "VERDICT", "FRONTEND", "SERVICE", "BACKEND", "TASK", "CHOSEN BY", "PATH", "RETURN"}

func traceRows(t *api.NetTrace) [][]string {
	backend, by := "", ""
	switch {
	case t.Backend.IsValid():
		backend, by = t.Backend.String(), "the table"
		if t.Remembered {
			by = "the flow"
		}
	case len(t.Candidates) > 0:
		var list []string
		for _, c := range t.Candidates {
			list = append(list, backendText(c)+" "+percent(c.Share))
		}
		backend = strings.Join(list, ", ")
	}
	return [][]string{{t.Verdict, t.Frontend, t.Service, backend, t.Task, by, t.Path, t.Return}}
}
