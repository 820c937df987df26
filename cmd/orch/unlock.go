package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/orch-dev/orch/pkg/api"
)

func newUnlockCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "unlock",
		Short: "Give this manager, which was restarted, the cluster's unlock key",
		Long:  "Give this manager, which was restarted, the cluster's unlock key: it is asked for, or read from standard input.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := readSecretLine(cmd.InOrStdin(), cmd.ErrOrStderr(), "unlock key")
			if err != nil {
				return err
			}
			_, err = call[api.UnlockRequest, api.Empty](cmd, c, api.ProcUnlock, &api.UnlockRequest{Key: key})
			return err
		},
	}
}

// readSecretLine asks for a key, without showing it, where there is a terminal.
func readSecretLine(in io.Reader, prompt io.Writer, what string) (string, error) {
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(prompt, "%s%s: ", strings.ToUpper(what[:1]), what[1:])
		key, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(prompt)
		return string(key), err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the %s: %w", what, err)
	}
	return strings.TrimSpace(line), nil
}

func newUnlockKeyCommand(c *cli) *cobra.Command {
	req := &api.UnlockKeyRequest{}
	var quiet bool
	cmd := &cobra.Command{
		Use:   "unlock-key",
		Short: "Print the key that managers need after a restart",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := call[api.UnlockKeyRequest, api.UnlockKey](cmd, c, api.ProcUnlockKey, req)
			if err != nil {
				return err
			}
			if quiet {
				fmt.Fprintln(cmd.OutOrStdout(), res.Key)
				return nil
			}
			printUnlockKey(cmd.OutOrStdout(), res.Key)
			return nil
		},
	}
	cmd.Flags().BoolVar(&req.Rotate, "rotate", false, "make a new key: managers that run take it over at once, those that are down need the old one once more")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "the key alone")
	return cmd
}

func printUnlockKey(out io.Writer, key string) {
	fmt.Fprintf(out, "To unlock a manager after its restart, run `orch unlock` on it and give it this key:\n\n    %s\n\n", key)
	fmt.Fprintln(out, "Keep it somewhere else than on the managers. Without it a manager that was restarted cannot come back.")
}
