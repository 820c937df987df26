package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/orch-dev/orch/pkg/api"
)

// errNoFiles: no manager gave a task's secrets and configs now, and one may later.
var errNoFiles = errors.New("get its secrets and configs")

// placeFiles gets a task's secrets and configs from a manager and puts them where
// the task will find them.
func (w *worker) placeFiles(ctx context.Context, t *api.Task) error {
	if len(t.Spec.Files) == 0 {
		return nil
	}
	files, err := w.agent.Managers.TaskFiles(ctx, t.ID)
	switch code := api.CodeOf(err); {
	case err == nil:
	case code == api.CodeNotFound || code == api.CodeDenied:
		return err
	default:
		return fmt.Errorf("%w: %w", errNoFiles, err)
	}
	if len(files) != len(t.Spec.Files) {
		return fmt.Errorf("%w: %d came for %d", errNoFiles, len(files), len(t.Spec.Files))
	}
	contents := make([][]byte, len(files))
	for i, f := range files {
		if f.ID != t.Spec.Files[i].ID {
			return fmt.Errorf("%w: %s %s came for %s", errNoFiles, f.Class, f.Name, t.Spec.Files[i].Name)
		}
		contents[i] = f.Data
	}
	return w.agent.Runtime.PlaceFiles(t, contents)
}
