package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/docker"
	"github.com/orch-dev/orch/pkg/fence"
)

func fenceDir(runDir string) string { return filepath.Join(runDir, "fence") }

// NewGuardCommand returns what the daemon starts beside itself on a node that runs
// singletons; people have no use for it.
func NewGuardCommand() *cobra.Command {
	var cfg docker.Config
	var node string
	cmd := &cobra.Command{
		Use:    "guard",
		Short:  "End the tasks of singletons when this node has lost its lease",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Node = api.NodeID(node)
			engine, err := docker.New(cfg)
			if err != nil {
				return err
			}
			defer func() { _ = engine.Close() }()
			favour()
			log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("part", "guard")
			return fence.RunGuard(cmd.Context(), fenceDir(cfg.RunDir), engine.EndTask, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.RunDir, "run-dir", DefaultRunDir, "the daemon's")
	f.StringVar(&cfg.Host, "docker-host", "", "the daemon's")
	f.StringVar(&cfg.ClusterID, "cluster", "", "the cluster's ID")
	f.StringVar(&node, "node", "", "this node's ID")
	return cmd
}

// favour has the kernel run this process before others and kill it after them,
// and lets it outlive whoever reads its output. What is refused does no harm.
func favour() {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
}

// startGuard starts the guard of this node's fence, which outlives the daemon.
func (m *member) startGuard(lock *os.File) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(program, "guard", "--run-dir", m.d.runDir, "--docker-host", m.d.dockerHost,
		"--cluster", m.id.ClusterID, "--node", string(m.id.Node))
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	cmd.ExtraFiles = []*os.File{lock} // held for as long as the guard lives
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	m.d.log.Info("the guard of singletons was started", "pid", cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // if the daemon lives longer
	return nil
}
