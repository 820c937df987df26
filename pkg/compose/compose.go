// Package compose turns compose files into the specs that orch works with. It
// computes and nothing else: bytes in, specs out.
//
// Every key of a compose file is honoured, warned about by name with what to do
// instead, or refused with file, line and column; none is silently ignored. The
// table in keys.go is where that is written down.
package compose

import (
	"cmp"
	"context"
	"maps"
	"path/filepath"
	"regexp"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"

	"github.com/orch-dev/orch/pkg/api"
)

// Source is one compose file. Name is its path as the user typed it, "-" for
// standard input; it opens every message about the file.
type Source struct {
	Name    string
	Content []byte
}

// Options are what a compose file may refer to outside itself.
type Options struct {
	// Env fills in ${VARIABLES} and environment entries that have no value. Its
	// COMPOSE_PROFILES, a comma-separated list, enables services with profiles.
	Env map[string]string
	// WorkingDir, an absolute path, is where relative paths of bind mounts,
	// env_file, label_file, include, extends, secrets and configs start. The files
	// that all but the first name are the only ones that Load reads.
	WorkingDir string
}

// Project is a stack as its compose files describe it, ready to be deployed.
// Every list is sorted by name.
type Project struct {
	Stack    string
	Services []api.ServiceSpec
	// Builds are the images that are made from source first.
	Builds []Build
	// Networks and Volumes are those that a service uses.
	Networks []NetworkSpec
	Volumes  []VolumeSpec
	// Files are the secrets and configs that a service uses, with their content.
	Files []api.FileSpec
	// Warnings are about keys that were understood and are not acted on.
	Warnings []Problem
}

// Build is the image of a service that is made from source.
type Build struct {
	Service string // by full name
	api.ImageBuild
}

// NetworkSpec is a network of a stack. An External one is not the stack's own:
// it has to exist already.
type NetworkSpec struct {
	Name     string // STACK_NAME, unless the file names it
	Internal bool
	// Encrypted: between nodes by WireGuard, or not at all.
	Encrypted bool
	External  bool
}

// VolumeSpec is a named volume of a stack.
type VolumeSpec struct {
	Name     string // STACK_NAME, unless the file names it
	External bool
}

var stackName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Load reads the compose files of a stack; where two set the same thing, the
// later one wins. A stack without a name gets that of the environment's
// COMPOSE_PROJECT_NAME, else of the files, else of WorkingDir. When the files cannot be deployed as they are, the error is a
// *Problems that lists everything found wrong.
func Load(ctx context.Context, stack string, sources []Source, opts Options) (*Project, error) {
	given := nameOf(sources, opts.Env)
	unused := stack != "" && given != "" && given != stack
	stack = cmp.Or(stack, opts.Env["COMPOSE_PROJECT_NAME"], given, loader.NormalizeProjectName(filepath.Base(opts.WorkingDir)))
	if !stackName.MatchString(stack) {
		return nil, &Problems{List: []Problem{{
			Message: `"` + stack + `" cannot be the name of a stack`,
			Hint:    "use lower-case letters, digits, - and _, at most 63, beginning with a letter or a digit",
		}}}
	}
	if len(sources) == 0 {
		return nil, &Problems{List: []Problem{{Message: "no compose file given"}}}
	}
	env := maps.Clone(opts.Env)
	if env == nil {
		env = map[string]string{}
	}
	env["COMPOSE_PROJECT_NAME"] = stack
	opts.Env = env

	files := &scan{env: env, dir: opts.WorkingDir, places: map[string]place{}}
	for _, s := range sources {
		files.file(s)
	}
	if len(files.problems) > 0 {
		return nil, newProblems(files.problems)
	}
	model, err := loadModel(ctx, stack, sources, opts, files)
	if err != nil {
		return nil, err
	}
	c := &converter{stack: stack, dir: opts.WorkingDir, model: model, scan: files, project: &Project{Stack: stack}}
	if unused {
		files.warnAt("name", "the stack is named on the command line; this name is not used", "")
	}
	c.convert()
	if len(files.problems) > 0 {
		return nil, newProblems(files.problems)
	}
	c.project.Warnings = newProblems(files.warnings).List
	return c.project, nil
}

// nameOf is the name that the last of the files which have one gives the stack.
func nameOf(sources []Source, env map[string]string) string {
	name := ""
	for _, src := range sources {
		var top struct{ Name string }
		if yaml.Unmarshal(src.Content, &top) != nil { // which the scan tells better
			continue
		}
		if v, err := template.SubstituteWithOptions(top.Name, lookup(env), template.WithoutLogging); err == nil {
			name = cmp.Or(v, name)
		}
	}
	return name
}
