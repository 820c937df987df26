package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// follower prints rows as they change, until it is interrupted.
type follower struct {
	on    bool
	every time.Duration
}

func (f *follower) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&f.on, "follow", "f", false, "go on, and tell what changes; with --format json an object a line")
	cmd.Flags().DurationVar(&f.every, "every", time.Second, "with --follow: how often the nodes are asked")
}

// follow asks for rows again and again, and prints those that are new or have
// changed: those of whose key the value is another than at the last look. What is
// gone is forgotten, and told again when it comes back.
func (f *follower) follow(cmd *cobra.Command, format string, heading []string, ask func() ([][]string, error), changed func(row []string) (key, value string)) error {
	if f.every < 100*time.Millisecond {
		return fmt.Errorf("--every %v: use 100ms or more", f.every)
	}
	var print func([]string) error
	switch out := cmd.OutOrStdout(); format {
	case "table":
		print = (&columns{w: out, widths: widthsOf(heading)}).print
		if err := print(heading); err != nil {
			return err
		}
	case "json":
		print = func(row []string) error { return printObject(out, heading, row) }
	default:
		return fmt.Errorf("--format %q: use table or json", format)
	}
	known := make(map[string]string)
	ticker := time.NewTicker(f.every)
	defer ticker.Stop()
	for {
		rows, err := ask()
		if err != nil {
			return orInterrupted(cmd.Context(), err)
		}
		now := make(map[string]string)
		for _, row := range rows {
			key, value := changed(row)
			now[key] = value
			if before, ok := known[key]; ok && before == value {
				continue
			}
			if err := print(row); err != nil {
				return err
			}
		}
		known = now
		select {
		case <-cmd.Context().Done():
			return nil
		case <-ticker.C:
		}
	}
}

// orInterrupted is no error if that is what ended it.
func orInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// columns prints a table whose rows are not known beforehand: a column becomes as
// wide as the widest cell so far.
type columns struct {
	w      io.Writer
	widths []int
}

func widthsOf(row []string) []int {
	widths := make([]int, len(row))
	for i, cell := range row {
		widths[i] = len(cell)
	}
	return widths
}

func (c *columns) print(row []string) error {
	var line strings.Builder
	for i, cell := range row {
		c.widths[i] = max(c.widths[i], len(cell))
		fmt.Fprintf(&line, "%-*s   ", c.widths[i], cell)
	}
	_, err := fmt.Fprintln(c.w, strings.TrimRight(line.String(), " "))
	return err
}

// printObject prints a row as a JSON object of its own line, with the heading's names.
func printObject(w io.Writer, heading, row []string) error {
	object := make(map[string]string)
	for i, cell := range row {
		object[strings.ToLower(heading[i])] = cell
	}
	return json.NewEncoder(w).Encode(object)
}
