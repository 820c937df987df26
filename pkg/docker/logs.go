package docker

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// Logs copies the task's output to stdout and stderr; a nil writer leaves that
// stream out. It returns nil at the end of the output: with Follow, when the
// task has ended and all is read.
func (e *Engine) Logs(ctx context.Context, id api.TaskID, opts api.LogOptions, stdout, stderr io.Writer) error {
	op := "logs of task " + string(id)
	found, err := e.list(ctx, taskLabel(id), LabelRole+"="+RoleTask)
	if err != nil {
		return wrap(op, err)
	}
	if len(found) == 0 {
		return fmt.Errorf("%s: no container of it on this node", op)
	}
	o := client.ContainerLogsOptions{
		ShowStdout: stdout != nil,
		ShowStderr: stderr != nil,
		Follow:     opts.Follow,
		Timestamps: opts.Timestamps,
	}
	if opts.Tail > 0 {
		o.Tail = strconv.Itoa(opts.Tail)
	}
	if !opts.Since.IsZero() {
		o.Since = opts.Since.Format(time.RFC3339Nano)
	}
	res, err := e.cli.ContainerLogs(ctx, found[0].ID, o)
	if err != nil {
		return wrap(op, err)
	}
	defer res.Close()
	about, err := e.cli.ContainerInspect(ctx, found[0].ID, client.ContainerInspectOptions{})
	if err != nil {
		return wrap(op, err)
	}
	if about.Container.Config.Tty { // a terminal has one stream, as it is
		_, err = io.Copy(orDiscard(stdout), res)
	} else {
		_, err = stdcopy.StdCopy(orDiscard(stdout), orDiscard(stderr), res)
	}
	if err != nil {
		if ctx.Err() != nil { // closing the body is how the client ends it
			err = ctx.Err()
		}
		return wrap(op, err)
	}
	return nil
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
