package docker

import (
	"context"
	"fmt"
	"io"

	"github.com/moby/moby/client"
)

// Probe runs the healthcheck of a task's application once, of its own or of its
// image, and reports whether it passed. The engine's first run comes only after
// a whole interval, which is long for a task that others wait for.
func (e *Engine) Probe(ctx context.Context, containerID string) (bool, error) {
	op := "probe container " + containerID
	res, err := e.cli.ContainerInspect(ctx, containerID, client.ContainerInspectOptions{})
	if err != nil {
		return false, wrap(op, err)
	}
	config := res.Container.Config
	if config == nil || config.Healthcheck == nil {
		return false, fmt.Errorf("%s: it has no healthcheck", op)
	}
	cmd := probeCommand(config.Healthcheck.Test, config.Shell)
	if len(cmd) == 0 {
		return false, fmt.Errorf("%s: it has no healthcheck", op)
	}
	exec, err := e.cli.ExecCreate(ctx, containerID, client.ExecCreateOptions{Cmd: cmd, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return false, wrap(op, err)
	}
	stream, err := e.cli.ExecAttach(ctx, exec.ID, client.ExecAttachOptions{})
	if err != nil {
		return false, wrap(op, err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, stream.Close)
	defer stop()
	if _, err := io.Copy(io.Discard, stream.Reader); err != nil {
		return false, wrap(op, err)
	}
	end, err := e.cli.ExecInspect(ctx, exec.ID, client.ExecInspectOptions{})
	if err != nil {
		return false, wrap(op, err)
	}
	return !end.Running && end.ExitCode == 0, nil
}

// probeCommand is what a healthcheck runs, as the engine would run it.
func probeCommand(test, shell []string) []string {
	switch {
	case len(test) < 2:
		return nil
	case test[0] == "CMD":
		return test[1:]
	case test[0] != "CMD-SHELL":
		return nil
	case len(shell) == 0:
		shell = []string{"/bin/sh", "-c"}
	}
	return append(shell[:len(shell):len(shell)], test[1])
}
