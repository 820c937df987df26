package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// call calls the daemon.
func call[Req, Res any](cmd *cobra.Command, c *cli, procedure string, req *Req) (*Res, error) {
	client, err := c.daemon()
	if err != nil {
		return nil, err
	}
	return rpc.Call[Req, Res](cmd.Context(), client, procedure, req)
}

// list is the output of a command that lists things.
type list struct {
	format string
	quiet  bool
}

func (l *list) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.format, "format", "table", "table or json")
	cmd.Flags().BoolVarP(&l.quiet, "quiet", "q", false, "IDs or names only, one a line")
}

// print writes rows under a heading, or the objects themselves as JSON, or the
// rows' keys alone.
func (l *list) print(w io.Writer, objects any, heading []string, rows [][]string, keys []string) error {
	switch {
	case l.quiet:
		for _, k := range keys {
			fmt.Fprintln(w, k)
		}
		return nil
	case l.format == "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(objects)
	case l.format != "table":
		return fmt.Errorf("--format %q: use table or json", l.format)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, strings.Join(heading, "\t"))
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// shortID is enough of an identifier for a person.
func shortID[T ~string](id T) string {
	if len(id) > 12 {
		return string(id[:12])
	}
	return string(id)
}

// age says how long ago something was, in one unit.
func age(now, then time.Time) string {
	d := now.Sub(then)
	switch {
	case then.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// ports prints published ports as a compose file has them.
func ports(list []api.Port) string {
	var out []string
	for _, p := range list {
		host := "*"
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			host = p.HostIP.String()
		}
		out = append(out, fmt.Sprintf("%s:%d->%d/%s", host, p.Published, p.Target, p.Protocol))
	}
	return strings.Join(out, ", ")
}

// oneLine makes a message fit a table.
func oneLine(s string, most int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return string(r[:most-3]) + "..."
	}
	return s
}
