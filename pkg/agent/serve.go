package agent

import (
	"context"
	"io"
	"sync"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// Output reads what tasks wrote.
type Output interface {
	Logs(ctx context.Context, id api.TaskID, opts api.LogOptions, stdout, stderr io.Writer) error
}

// ServeOutput adds what managers ask of the tasks' output to a mux.
func ServeOutput(mux *rpc.Mux, output Output) {
	rpc.HandleStream(mux, api.ProcTaskLogs, func(ctx context.Context, req *api.TaskLogsRequest, send func(*api.LogChunk) error) error {
		var mu sync.Mutex
		out := &chunkWriter{mu: &mu, send: send}
		errOut := &chunkWriter{mu: &mu, send: send, stderr: true}
		return output.Logs(ctx, req.Task, req.Options, out, errOut)
	})
}

// ServePaths adds what managers ask of the node's files to a mux. has tells whether
// a path is there, for a caller who may know.
func ServePaths(mux *rpc.Mux, has func(ctx context.Context, path string) (bool, error)) {
	rpc.Handle(mux, api.ProcMissingPaths, func(ctx context.Context, req *api.Paths) (*api.Paths, error) {
		missing := &api.Paths{}
		for _, path := range req.Paths {
			there, err := has(ctx, path)
			if err != nil {
				return nil, err
			}
			if !there {
				missing.Paths = append(missing.Paths, path)
			}
		}
		return missing, nil
	})
}

// chunkWriter sends what is written as chunks of one of a task's two outputs.
type chunkWriter struct {
	mu     *sync.Mutex
	send   func(*api.LogChunk) error
	stderr bool
}

var _ io.Writer = (*chunkWriter)(nil)

func (w *chunkWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.send(&api.LogChunk{Stderr: w.stderr, Data: p}); err != nil {
		return 0, err
	}
	return len(p), nil
}
