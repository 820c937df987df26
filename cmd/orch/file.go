package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
)

// newFileCommand is `orch secret` or `orch config`: the same, but for what is shown.
func newFileCommand(c *cli, class api.FileClass, short string) *cobra.Command {
	cmd := &cobra.Command{Use: string(class), Short: short, Args: noSuchCommand, RunE: showHelp}
	cmd.AddCommand(newFileCreateCommand(c, class), newFileListCommand(c, class), newFileInspectCommand(c, class), newFileRemoveCommand(c, class))
	return cmd
}

func newFileCreateCommand(c *cli, class api.FileClass) *cobra.Command {
	var labels []string
	cmd := &cobra.Command{
		Use:   "create NAME FILE",
		Short: fmt.Sprintf("Make a %s of what is in a file, or comes on standard input (-), for stacks that declare it external", class),
		Example: fmt.Sprintf(`  orch %[1]s create site.key ./site.key
  openssl rand -hex 32 | orch %[1]s create token -`, class),
		Args: exactArgs(2, "a name, and a file or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readContent(cmd.InOrStdin(), args[1], class)
			if err != nil {
				return err
			}
			spec := api.FileSpec{Class: class, Name: args[0], Data: data}
			if spec.Labels, err = parseLabels(labels); err != nil {
				return err
			}
			entry, err := call[api.CreateFileRequest, api.FileEntry](cmd, c, api.ProcCreateFile, &api.CreateFileRequest{Spec: spec})
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), entry.ID)
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&labels, "label", "l", nil, "a label, KEY=VALUE")
	return cmd
}

// readContent reads a little more than may be in a file of the class: the manager
// says what is too much.
func readContent(stdin io.Reader, name string, class api.FileClass) ([]byte, error) {
	from := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read the %s: %w", class, err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, int64(class.MaxSize())+1))
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", class, err)
	}
	return data, nil
}

func parseLabels(list []string) (map[string]string, error) {
	var out map[string]string
	for _, label := range list {
		k, v, ok := strings.Cut(label, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--label %q: give KEY=VALUE", label)
		}
		if out == nil {
			out = make(map[string]string)
		}
		out[k] = v
	}
	return out, nil
}

func newFileListCommand(c *cli, class api.FileClass) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: fmt.Sprintf("List the %ss; a stack's has a version for each content in use", class),
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			files, err := call[api.FilesRequest, api.FileList](cmd, c, api.ProcFiles, &api.FilesRequest{Class: class})
			if err != nil {
				return err
			}
			var rows [][]string
			var keys []string
			now := time.Now()
			for _, f := range files.Files {
				rows = append(rows, []string{shortID(f.ID), f.Name, f.Stack, fmt.Sprint(f.Size), age(now, f.CreatedAt), strings.Join(f.UsedBy, ", ")})
				keys = append(keys, string(f.ID))
			}
			return l.print(cmd.OutOrStdout(), files.Files, []string{"ID", "NAME", "STACK", "BYTES", "AGE", "USED BY"}, rows, keys)
		},
	}
	l.flags(cmd)
	return cmd
}

func newFileInspectCommand(c *cli, class api.FileClass) *cobra.Command {
	short := "Show what is known of a secret, but not what is in it"
	if class == api.ClassConfig {
		short = "Show a config and what is in it"
	}
	var content bool
	cmd := &cobra.Command{
		Use:   "inspect " + strings.ToUpper(string(class)),
		Short: short,
		Args:  exactArgs(1, "a name or an ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			entry, err := call[api.FileRequest, api.FileEntry](cmd, c, api.ProcFile, &api.FileRequest{Class: class, File: args[0]})
			if err != nil {
				return err
			}
			if content {
				_, err := cmd.OutOrStdout().Write(entry.Data)
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(entry)
		},
	}
	if class == api.ClassConfig {
		cmd.Flags().BoolVar(&content, "content", false, "print what is in it, and nothing else")
	}
	return cmd
}

func newFileRemoveCommand(c *cli, class api.FileClass) *cobra.Command {
	return &cobra.Command{
		Use:   fmt.Sprintf("rm %s...", strings.ToUpper(string(class))),
		Short: fmt.Sprintf("Remove %ss that no service uses", class),
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				entry, err := call[api.FileRequest, api.FileEntry](cmd, c, api.ProcRemoveFile, &api.FileRequest{Class: class, File: name})
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), entry.Name)
			}
			return nil
		},
	}
}
