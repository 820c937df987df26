package api

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"time"
)

// FileID names one version of a secret or config.
type FileID string

// FileClass says which of the two a File is.
type FileClass string

const (
	ClassSecret FileClass = "secret" // shown to nobody but the tasks that name it
	ClassConfig FileClass = "config"
)

// MaxSize is how much may be in a file of the class, in bytes.
func (c FileClass) MaxSize() int {
	if c == ClassSecret {
		return 500 << 10
	}
	return 1000 << 10
}

// DefaultTarget is where a task finds a file for which it names no place.
func (c FileClass) DefaultTarget(name string) string {
	if c == ClassSecret {
		return "/run/secrets/" + name
	}
	return "/" + name
}

// File is a secret or a config: content that tasks find as a file. Its content
// never changes: other content is another File, a version of its own.
type File struct {
	Meta  Meta      `json:"meta"`
	ID    FileID    `json:"id"`
	Class FileClass `json:"class"`
	Name  string    `json:"name"`
	// Stack is whose it is: there may be several versions of a name, and those
	// that nothing needs any more are removed. Empty: a user made it and removes it;
	// there is one of the name.
	Stack  string            `json:"stack,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Data   []byte            `json:"data,omitempty"` // for managers, and nodes that run a task that names it

	CreatedAt time.Time `json:"createdAt"`
	UpdatedAt time.Time `json:"updatedAt"` // of the labels
}

// FileRef is a File as a task has it.
type FileRef struct {
	Class FileClass `json:"class"`
	Name  string    `json:"name"`
	// ID is the version, set at deploy.
	ID     FileID `json:"id,omitempty"`
	Target string `json:"target"` // absolute
	UID    uint32 `json:"uid,omitempty"`
	GID    uint32 `json:"gid,omitempty"`
	Mode   uint32 `json:"mode"` // permissions, at most 0777
}

// DefaultFileMode is the mode of a file for which none is given.
const DefaultFileMode = 0o444

// FileSpec is a secret or config that a stack declares.
type FileSpec struct {
	Class  FileClass         `json:"class"`
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Data   []byte            `json:"data,omitempty"`
	// External ones must exist already and are not the stack's.
	External bool `json:"external,omitempty"`
}

// Format keeps the content out of everything that is printed.
func (s FileSpec) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%s %s", s.Class, s.Name) }

// Format keeps the content out of everything that is printed.
func (f File) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%s %s (%s)", f.Class, f.Name, f.ID) }

var fileName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// ValidateFile checks the name and the content of a secret or config.
func ValidateFile(class FileClass, name string, data []byte) error {
	switch most := class.MaxSize(); {
	case class != ClassSecret && class != ClassConfig:
		return Errorf(CodeInvalid, "%q is neither secret nor config", class)
	case len(name) > maxName || !fileName.MatchString(name):
		return Errorf(CodeInvalid, "%s name %q: use 1 to %d letters, digits, -, _ and ., beginning and ending with a letter or digit", class, name, maxName)
	case len(data) == 0:
		return Errorf(CodeInvalid, "%s %s has nothing in it", class, name)
	case len(data) > most:
		return Errorf(CodeInvalid, "%s %s has %d bytes; at most %d are possible", class, name, len(data), most)
	}
	return nil
}

func (r *DeployRequest) validateFiles() error {
	type key struct {
		class FileClass
		name  string
	}
	declared := make(map[key]bool)
	for _, f := range r.Files {
		data := f.Data
		if f.External {
			data = []byte("somewhere else")
		}
		if err := ValidateFile(f.Class, f.Name, data); err != nil {
			return err
		}
		if declared[key{f.Class, f.Name}] {
			return Errorf(CodeInvalid, "%s %s is there twice", f.Class, f.Name)
		}
		declared[key{f.Class, f.Name}] = true
	}
	for _, s := range r.Services {
		targets := make(map[string]bool)
		for _, f := range s.Task.Files {
			switch {
			case !declared[key{f.Class, f.Name}]:
				return Errorf(CodeInvalid, "service %s uses the %s %s, which the stack does not name", s.Name, f.Class, f.Name)
			case targets[f.Target]:
				return Errorf(CodeInvalid, "service %s: two files have the target %s", s.Name, f.Target)
			}
			if err := f.Validate(s.Name); err != nil {
				return err
			}
			targets[f.Target] = true
		}
	}
	return nil
}

// Validate checks where a service's tasks find the file, and with which mode.
func (f *FileRef) Validate(service string) error {
	switch {
	case !path.IsAbs(f.Target) || path.Clean(f.Target) != f.Target || f.Target == "/":
		return Errorf(CodeInvalid, "service %s: the target %q of %s %s is no absolute path of a file", service, f.Target, f.Class, f.Name)
	case f.Mode > 0o777:
		return Errorf(CodeInvalid, "service %s: %s %s: mode %#o: give at most 0777", service, f.Class, f.Name, f.Mode)
	}
	return nil
}

// FileByName returns the newest version of a secret or config, or nil.
func (s *Snapshot) FileByName(class FileClass, name string) *File {
	var newest *File
	for _, f := range s.Files {
		if f.Class == class && f.Name == name && (newest == nil || f.Meta.Created > newest.Meta.Created) {
			newest = f
		}
	}
	return newest
}

// Uses reports whether the task has the file.
func (t *TaskSpec) Uses(id FileID) bool {
	return slices.ContainsFunc(t.Files, func(f FileRef) bool { return f.ID == id })
}

// FileUsers names, sorted, the services whose tasks have a file or are to have it.
func (s *Snapshot) FileUsers() map[FileID][]string {
	users := make(map[FileID][]string)
	for _, svc := range s.Services {
		for _, f := range svc.Spec.Task.Files {
			users[f.ID] = append(users[f.ID], svc.Spec.Name)
		}
	}
	for _, t := range s.Tasks {
		if t.Status.State.Terminal() {
			continue
		}
		for _, f := range t.Spec.Files {
			users[f.ID] = append(users[f.ID], t.ServiceName)
		}
	}
	for id := range users {
		slices.Sort(users[id])
		users[id] = slices.Compact(users[id])
	}
	return users
}

// FilesByName lists secrets or configs by name, the newest version of each first.
func (s *Snapshot) FilesByName(class FileClass) []*File {
	var files []*File
	for _, f := range s.Files {
		if f.Class == class {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b *File) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(b.Meta.Created, a.Meta.Created), cmp.Compare(a.ID, b.ID))
	})
	return files
}

// Procedures about secrets and configs.
const (
	ProcCreateFile = "/orch.cluster/CreateFile" // CreateFileRequest -> FileEntry
	ProcFiles      = "/orch.cluster/Files"      // FilesRequest -> FileList
	ProcFile       = "/orch.cluster/File"       // FileRequest -> FileEntry
	ProcRemoveFile = "/orch.cluster/RemoveFile" // FileRequest -> FileEntry
	ProcTaskFiles  = "/orch.cluster/TaskFiles"  // TaskFilesRequest -> TaskFiles
)

// CreateFileRequest makes a secret or config that is no stack's.
type CreateFileRequest struct {
	Spec FileSpec `json:"spec"`
}

// FilesRequest lists secrets or configs.
type FilesRequest struct {
	Class FileClass `json:"class"`
}

// FileRequest names one: by name, ID or unambiguous prefix of the ID.
type FileRequest struct {
	Class FileClass `json:"class"`
	File  string    `json:"file"`
}

// FileList is secrets or configs, without content.
type FileList struct {
	Files []FileEntry `json:"files"`
}

// FileEntry is a secret or config as users see it: a secret without content.
type FileEntry struct {
	ID        FileID            `json:"id"`
	Class     FileClass         `json:"class"`
	Name      string            `json:"name"`
	Stack     string            `json:"stack,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Size      int               `json:"size"` // in bytes
	CreatedAt time.Time         `json:"createdAt"`
	UpdatedAt time.Time         `json:"updatedAt"`
	// UsedBy are services, by full name.
	UsedBy []string `json:"usedBy,omitempty"`
	// Digest, of a config, is SHA-256 in hexadecimal; that of a secret would give
	// one away that can be guessed. Data is given for a config that was asked for.
	Digest string `json:"digest,omitempty"`
	Data   []byte `json:"data,omitempty"`
}

// TaskFilesRequest asks for the files of a task, by the node that runs it.
type TaskFilesRequest struct {
	Task TaskID `json:"task"`
}

// TaskFiles are a task's files with their content.
type TaskFiles struct {
	Files []File `json:"files"`
}
