package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
)

func newUserCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Let people use the cluster from other machines",
		Long: `Let people use the cluster from other machines. A user is known by a certificate. It
is in a file that this command writes and that ` + "`orch context create`" + ` takes there;
who has the file is that user.`,
		Args: noSuchCommand, RunE: showHelp,
	}
	cmd.AddCommand(newUserAddCommand(c), newUserRenewCommand(c), newUserListCommand(c), newUserRemoveCommand(c))
	return cmd
}

func newUserAddCommand(c *cli) *cobra.Command {
	req, file := &api.AddUserRequest{}, ""
	cmd := &cobra.Command{
		Use:     "add NAME --role admin|viewer",
		Short:   "Add a user, and write the file that they need",
		Example: "  orch user add alice --role viewer   # then, on her machine: orch context create work --from alice.orch",
		Args:    exactArgs(1, "the name of a new user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			return addUser(cmd, c, req, file)
		},
	}
	cmd.Flags().StringVar((*string)(&req.Role), "role", string(api.UserViewer), "admin (may do everything) or viewer (may look at everything but secrets)")
	userFileFlag(cmd, &file)
	return cmd
}

func newUserRenewCommand(c *cli) *cobra.Command {
	req, file := &api.AddUserRequest{Renew: true}, ""
	cmd := &cobra.Command{
		Use:   "renew NAME",
		Short: "Write a new file for a user: the one that they have is good no longer",
		Args:  exactArgs(1, "the name of a user"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			return addUser(cmd, c, req, file)
		},
	}
	cmd.Flags().StringVar((*string)(&req.Role), "role", "", "another role: admin or viewer")
	userFileFlag(cmd, &file)
	return cmd
}

func userFileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "output", "o", "", "where to write it, - for standard output (default NAME.orch)")
}

// addUser asks for the certificate of a key made here, and writes both.
func addUser(cmd *cobra.Command, c *cli, req *api.AddUserRequest, file string) error {
	if file == "" {
		file = req.Name + ".orch"
	}
	if _, err := os.Stat(file); file != "-" && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is a file %s already: remove it, or write another with --output", file)
	}
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	if req.Request, err = pki.Request(key); err != nil {
		return err
	}
	access, err := call[api.AddUserRequest, api.UserAccess](cmd, c, api.ProcAddUser, req)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(remote{UserAccess: *access, Key: key}, "", "  ")
	if err != nil {
		return err
	}
	if file == "-" {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), string(data))
		return err
	}
	if err := writeFile(file, data); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is now %s of this cluster, by the file %s.\nOn their machine: orch context create NAME --from %s, then remove the file.\n",
		access.User.Name, roleOf(access.User.Role), file, file)
	return nil
}

func roleOf(role api.UserRole) string {
	if role == api.UserAdmin {
		return "an admin"
	}
	return "a " + string(role)
}

func newUserListCommand(c *cli) *cobra.Command {
	l := &list{}
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the users",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			users, err := call[api.Empty, api.UserList](cmd, c, api.ProcUsers, &api.Empty{})
			if err != nil {
				return err
			}
			var rows [][]string
			var keys []string
			for _, u := range users.Users {
				rows = append(rows, []string{u.Name, string(u.Role), age(time.Now(), u.CreatedAt)})
				keys = append(keys, u.Name)
			}
			return l.print(cmd.OutOrStdout(), users.Users, []string{"NAME", "ROLE", "AGE"}, rows, keys)
		},
	}
	l.flags(cmd)
	return cmd
}

func newUserRemoveCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Take all rights from users, at once",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var failed []error
			for _, name := range args {
				if _, err := call[api.RemoveUserRequest, api.Empty](cmd, c, api.ProcRemoveUser, &api.RemoveUserRequest{Name: name}); err != nil {
					failed = append(failed, err)
					continue
				}
				fmt.Fprintln(cmd.OutOrStdout(), name)
			}
			return errors.Join(failed...)
		},
	}
}
