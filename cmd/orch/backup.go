package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/backup"
	"github.com/orch-dev/orch/pkg/rpc"
)

func newClusterBackupCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all that the cluster's managers know into a file, or to standard output (-)",
		Long: `Write all that the cluster's managers know into a file, or to standard output (-): its
nodes and services, secrets and configs, users and the authority. What is in volumes is
not in it. The file is sealed under the cluster's backup key, which ` + "`orch cluster backup-key`" + `
prints: without the key it is of no use to anybody.

It is what the leader knows at that moment, also if another manager is asked. With
--stale it is what the manager that is asked knows, which works without a quorum too.`,
		Example: "  orch cluster backup /backup/orch-$(date +%F)",
		Args:    exactArgs(1, "the name of a file, or - for standard output"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("stale") {
				cmd.SetContext(rpc.WithRead(cmd.Context(), api.ReadConsistent))
				if err := ensureBackupKey(cmd, c); err != nil {
					return err
				}
			}
			if args[0] == "-" {
				_, err := copyBackup(cmd, c, cmd.OutOrStdout())
				return err
			}
			return backupInto(cmd, c, args[0])
		},
	}
}

// ensureBackupKey prints the backup key if it is made now: from then on a backup is
// worth nothing without it.
func ensureBackupKey(cmd *cobra.Command, c *cli) error {
	key, err := call[api.BackupKeyRequest, api.BackupKey](cmd, c, api.ProcBackupKey, &api.BackupKeyRequest{})
	if err == nil && key.Made {
		printBackupKey(cmd.ErrOrStderr(), key.Key)
		fmt.Fprintln(cmd.ErrOrStderr())
	}
	return err
}

func printBackupKey(out io.Writer, key string) {
	fmt.Fprintf(out, "This key opens the cluster's backups:\n\n    %s\n\n", key)
	fmt.Fprintln(out, "Keep it somewhere else than the backups and the managers. Without it no backup can be restored.")
}

// backupInto makes a file that is whole or not there.
func backupInto(cmd *cobra.Command, c *cli, name string) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".orch-backup-*")
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	defer func() { err = errors.Join(err, ignoreMissing(os.Remove(tmp.Name()))) }()
	size, err := copyBackup(cmd, c, tmp)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if err := os.Rename(tmp.Name(), name); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	head, err := checkBackup(name)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is a backup of cluster %s at index %d: %s. It opens with the cluster's backup key alone (`orch cluster backup-key`).\n",
		name, head.Cluster, head.Index, byteCount(size))
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// copyBackup writes what a manager sends, and shows how much that is so far.
func copyBackup(cmd *cobra.Command, c *cli, to io.Writer) (int64, error) {
	client, err := c.daemon()
	if err != nil {
		return 0, err
	}
	content, err := rpc.Content(cmd.Context(), client, api.ProcBackup, &api.Empty{})
	if err != nil {
		return 0, err
	}
	defer content.Close()
	return io.Copy(to, &shown{Reader: content, out: cmd.ErrOrStderr()})
}

// shown shows on a terminal how much has been read.
type shown struct {
	io.Reader
	out  io.Writer
	size int64
	last time.Time
}

func (s *shown) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.size += int64(n)
	if done := err != nil; isTerminal(s.out) && (done || time.Since(s.last) > settingsPoll) {
		s.last = time.Now()
		showLine(s.out, byteCount(s.size), done)
	}
	return n, err
}

func byteCount(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// checkBackup refuses a file that is no backup, or damaged.
func checkBackup(name string) (backup.Header, error) {
	f, err := os.Open(name)
	if err != nil {
		return backup.Header{}, fmt.Errorf("read the backup: %w", err)
	}
	defer f.Close()
	head, err := backup.Check(f)
	if err != nil {
		return head, fmt.Errorf("%s: %w", name, err)
	}
	return head, nil
}

func newClusterBackupKeyCommand(c *cli) *cobra.Command {
	req := &api.BackupKeyRequest{}
	var quiet bool
	cmd := &cobra.Command{
		Use:   "backup-key",
		Short: "Print the key that opens the cluster's backups",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := call[api.BackupKeyRequest, api.BackupKey](cmd, c, api.ProcBackupKey, req)
			if err != nil {
				return err
			}
			if quiet {
				fmt.Fprintln(cmd.OutOrStdout(), key.Key)
				return nil
			}
			printBackupKey(cmd.OutOrStdout(), key.Key)
			return nil
		},
	}
	cmd.Flags().BoolVar(&req.Rotate, "rotate", false, "make a new key: backups that were made before still need the old one")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "the key alone")
	return cmd
}

func newClusterRestoreCommand(c *cli) *cobra.Command {
	req, once := &api.RestoreRequest{}, &showOnce{}
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make this node, which is in no cluster, the manager of the cluster that a backup is of",
		Long: `Make this node, which is in no cluster, the only manager of the cluster that a backup
is of: when all of its managers are lost. The backup key is asked for, or read from
standard input.

Workers come back by themselves if this node has the address of one of the managers of
then; else join them again. Other managers of then are members no more.`,
		Args: exactArgs(1, "the name of a file that `orch cluster backup` has written"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			head, err := checkBackup(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s is a backup of cluster %s at index %d, made %s\n", args[0], head.Cluster, head.Index, head.Made.Local().Format(time.DateTime))
			if req.Shown, err = once.read(); err != nil {
				return err
			}
			if req.Key, err = readSecretLine(cmd.InOrStdin(), cmd.ErrOrStderr(), "backup key"); err != nil {
				return err
			}
			if err := restoreFrom(cmd.Context(), c, args[0], req); err != nil {
				return err
			}
			info, err := call[api.Empty, api.Info](cmd, c, api.ProcInfo, &api.Empty{})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "This node (%s) is now the only manager of cluster %s, at %s: %d nodes, %d services.\n\n",
				shortID(info.Node.ID), info.ClusterID, info.Node.Addr, info.Nodes, info.Services)
			fmt.Fprintln(cmd.OutOrStdout(), "See `orch node ls` for the workers that are back. To add managers, run `orch join-token manager`.")
			return nil
		},
	}
	cmd.Flags().StringVar(&req.AdvertiseAddr, "advertise-addr", "", "this node's address for other nodes (default: the daemon's, or the one of the default route)")
	once.flags(cmd)
	cmd.Flags().BoolVar(&req.Force, "force", false, "also if managers of the cluster answer, which are members no more then")
	return cmd
}

func restoreFrom(ctx context.Context, c *cli, name string, req *api.RestoreRequest) error {
	client, err := c.daemon()
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	defer f.Close()
	return rpc.Upload(ctx, client, api.ProcRestore, req, f)
}
