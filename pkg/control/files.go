package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// CreateFile makes a secret or config that users name as external.
func (s *Server) CreateFile(ctx context.Context, req *api.CreateFileRequest) (*api.FileEntry, error) {
	spec := req.Spec
	if err := api.ValidateFile(spec.Class, spec.Name, spec.Data); err != nil {
		return nil, err
	}
	now := s.now()
	file := &api.File{
		ID: api.FileID(s.NewID()), Class: spec.Class, Name: spec.Name, Labels: spec.Labels, Data: spec.Data,
		CreatedAt: now, UpdatedAt: now,
	}
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		if snap.FileByName(spec.Class, spec.Name) != nil {
			return nil, api.Errorf(api.CodeConflict, "%s %s exists; its content never changes: give the new content a name of its own, or remove it first", spec.Class, spec.Name)
		}
		return []api.Change{{File: file}}, nil
	})
	if err != nil {
		return nil, err
	}
	entry := fileEntry(file, nil)
	return &entry, nil
}

// Files lists secrets or configs by name, the newest version of each first.
func (s *Server) Files(_ context.Context, req *api.FilesRequest) (*api.FileList, error) {
	snap := s.Replica.Snapshot()
	list := &api.FileList{Files: []api.FileEntry{}}
	users := snap.FileUsers()
	for _, f := range snap.FilesByName(req.Class) {
		list.Files = append(list.Files, fileEntry(f, users[f.ID]))
	}
	return list, nil
}

// File tells of one secret or config; of a config, its content too.
func (s *Server) File(_ context.Context, req *api.FileRequest) (*api.FileEntry, error) {
	snap := s.Replica.Snapshot()
	file, err := findFile(snap, req)
	if err != nil {
		return nil, err
	}
	entry := fileEntry(file, snap.FileUsers()[file.ID])
	if file.Class == api.ClassConfig {
		entry.Data = file.Data
	}
	return &entry, nil
}

// RemoveFile removes a secret or config that nothing uses.
func (s *Server) RemoveFile(ctx context.Context, req *api.FileRequest) (*api.FileEntry, error) {
	var entry api.FileEntry
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		file, err := findFile(snap, req)
		if err != nil {
			return nil, err
		}
		if users := snap.FileUsers()[file.ID]; len(users) > 0 {
			return nil, api.Errorf(api.CodeConflict, "%s %s is in use by %s: take it out of there first", file.Class, file.Name, strings.Join(users, ", "))
		}
		entry = fileEntry(file, nil)
		return []api.Change{api.DeleteFile(file)}, nil
	})
	return &entry, err
}

// findFile finds a secret or config by name, which stands for its newest version,
// by ID or by an unambiguous prefix of it.
func findFile(snap *api.Snapshot, req *api.FileRequest) (*api.File, error) {
	if file := snap.FileByName(req.Class, req.File); file != nil {
		return file, nil
	}
	return find(string(req.Class), req.File, slices.Values(snap.FilesByName(req.Class)), func(f *api.File) (string, string) { return f.Name, string(f.ID) })
}

// fileEntry is a file as users see it: without content.
func fileEntry(f *api.File, users []string) api.FileEntry {
	entry := api.FileEntry{
		ID: f.ID, Class: f.Class, Name: f.Name, Stack: f.Stack, Labels: f.Labels, Size: len(f.Data),
		CreatedAt: f.CreatedAt, UpdatedAt: f.UpdatedAt, UsedBy: users,
	}
	if f.Class == api.ClassConfig {
		sum := sha256.Sum256(f.Data)
		entry.Digest = hex.EncodeToString(sum[:])
	}
	return entry
}

// TaskFiles gives a node the files of a task that it runs or is about to run.
func (s *Server) TaskFiles(ctx context.Context, req *api.TaskFilesRequest) (*api.TaskFiles, error) {
	snap := s.Replica.Snapshot()
	task, caller := snap.Tasks[req.Task], rpc.CallerOf(ctx)
	switch {
	case task == nil:
		return nil, api.Errorf(api.CodeUnavailable, "this manager does not know task %s", req.Task)
	case caller.Local || caller.Node == "" || task.NodeID != caller.Node:
		return nil, api.Errorf(api.CodeDenied, "task %s does not run there", req.Task)
	case task.Status.State.Terminal():
		return nil, api.Errorf(api.CodeDenied, "task %s has ended", task.Name())
	}
	res := &api.TaskFiles{}
	for _, ref := range task.Spec.Files {
		file := snap.Files[ref.ID]
		if file == nil {
			return nil, api.Errorf(api.CodeNotFound, "%s %s does not exist any more: create it, and deploy the stack again", ref.Class, ref.Name)
		}
		res.Files = append(res.Files, *file)
	}
	return res, nil
}

// fileKey is what a service names a file by.
type fileKey struct {
	class api.FileClass
	name  string
}

// planFiles makes the versions of a stack's secrets and configs that are not
// there yet, and says which version each name stands for now.
func planFiles(snap *api.Snapshot, req *api.DeployRequest, newID func() string, now time.Time) ([]api.Change, map[fileKey]*api.File, error) {
	var changes []api.Change
	versions := make(map[fileKey]*api.File)
	for _, spec := range req.Files {
		known := snap.FileByName(spec.Class, spec.Name)
		if err := mayDeclare(req.Stack, spec, known); err != nil {
			return nil, nil, err
		}
		file := known
		if !spec.External {
			file = versionWith(snap, req.Stack, spec)
		}
		switch {
		case file == nil:
			file = &api.File{
				ID: api.FileID(newID()), Class: spec.Class, Name: spec.Name, Stack: req.Stack, Labels: spec.Labels, Data: spec.Data,
				CreatedAt: now, UpdatedAt: now,
			}
			changes = append(changes, api.Change{File: file})
		case !spec.External && !maps.Equal(file.Labels, spec.Labels):
			next := *file
			next.Labels, next.UpdatedAt = spec.Labels, now
			changes = append(changes, api.Change{File: &next})
		}
		versions[fileKey{spec.Class, spec.Name}] = file
	}
	return changes, versions, nil
}

// mayDeclare refuses a secret or config that a stack cannot have. known is the
// newest version of the name.
func mayDeclare(stack string, spec api.FileSpec, known *api.File) error {
	switch {
	case spec.External && known == nil:
		return api.Errorf(api.CodeNotFound, "%s %s is external but does not exist: make it with `orch %s create %s FILE`", spec.Class, spec.Name, spec.Class, spec.Name)
	case spec.External || known == nil || known.Stack == stack:
		return nil
	case known.Stack == "":
		return api.Errorf(api.CodeConflict, "%s %s exists and is no stack's: to use it, declare it external", spec.Class, spec.Name)
	}
	return api.Errorf(api.CodeConflict, "%s %s exists and belongs to stack %q", spec.Class, spec.Name, known.Stack)
}

// versionWith is the version of a stack's file with that content, nil if there is
// none.
func versionWith(snap *api.Snapshot, stack string, spec api.FileSpec) *api.File {
	for _, f := range snap.FilesByName(spec.Class) {
		if f.Stack == stack && f.Name == spec.Name && bytes.Equal(f.Data, spec.Data) {
			return f
		}
	}
	return nil
}

// withVersions is a spec whose files name the versions given.
func withVersions(spec api.ServiceSpec, versions map[fileKey]*api.File) api.ServiceSpec {
	spec.Task.Files = slices.Clone(spec.Task.Files)
	for i := range spec.Task.Files {
		ref := &spec.Task.Files[i]
		ref.ID = versions[fileKey{ref.Class, ref.Name}].ID
	}
	return spec
}

// changedFiles are a service's secrets and configs after an update.
func changedFiles(snap *api.Snapshot, spec *api.ServiceSpec, req *api.UpdateRequest) ([]api.FileRef, error) {
	if len(req.AddFiles)+len(req.RemoveFiles) == 0 {
		return spec.Task.Files, nil
	}
	files := slices.Clone(spec.Task.Files)
	for _, gone := range req.RemoveFiles {
		left := slices.DeleteFunc(slices.Clone(files), func(f api.FileRef) bool { return f.Class == gone.Class && f.Name == gone.Name })
		if len(left) == len(files) {
			return nil, api.Errorf(api.CodeInvalid, "service %s has no %s %s", spec.Name, gone.Class, gone.Name)
		}
		files = left
	}
	for _, ref := range req.AddFiles {
		file := snap.FileByName(ref.Class, ref.Name)
		if file == nil {
			return nil, api.Errorf(api.CodeNotFound, "no %s is called %q (see `orch %s ls`)", ref.Class, ref.Name, ref.Class)
		}
		ref.ID = file.ID
		files = slices.DeleteFunc(files, func(f api.FileRef) bool { return f.Target == ref.Target })
		if err := ref.Validate(spec.Name); err != nil {
			return nil, err
		}
		files = append(files, ref)
	}
	if len(files) == 0 {
		return nil, nil // as it is stored
	}
	return files, nil
}

// held writes again, as they are, the files that services begin to use with these
// changes: then none of them can be removed at the same time because nothing used
// it.
func held(snap *api.Snapshot, changes []api.Change) ([]api.Change, error) {
	written := make(map[api.FileID]bool)
	for _, c := range changes {
		if c.File != nil {
			written[c.File.ID] = true
		}
	}
	var more []api.Change
	for _, c := range changes {
		if c.Service == nil || c.Delete {
			continue
		}
		old := snap.Services[c.Service.ID]
		for _, ref := range c.Service.Spec.Task.Files {
			if written[ref.ID] || old != nil && old.Spec.Task.Uses(ref.ID) {
				continue
			}
			file := snap.Files[ref.ID]
			if file == nil { // one that a user has removed, in a spec of before
				return nil, api.Errorf(api.CodeNotFound, "service %s: the %s %s that it used was removed", c.Service.Spec.Name, ref.Class, ref.Name)
			}
			written[ref.ID] = true
			same := *file
			more = append(more, api.Change{File: &same})
		}
	}
	return more, nil
}
