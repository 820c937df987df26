// Package compose turns compose files into the specs that orch works with. It
// computes and nothing else: bytes in, specs out.
//
// Every key of a compose file is honoured, warned about by name with what to do
// instead, or refused with file, line and column; none is silently ignored. The
// table in keys.go is where that is written down.
package compose

import (
	"context"
	"maps"
	"regexp"

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
	// env_file, label_file, secrets and configs start. The files that all but the
	// first name are the only ones that Load reads.
	WorkingDir string
}

// Project is a stack as its compose files describe it, ready to be deployed.
// Every list is sorted by name.
type Project struct {
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
	External bool
}

// VolumeSpec is a named volume of a stack.
type VolumeSpec struct {
	Name     string // STACK_NAME, unless the file names it
	External bool
}

var stackName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Load reads the compose files of a stack; where two set the same thing, the
// later one wins. When the files cannot be deployed as they are, the error is a
// *Problems that lists everything found wrong.
func Load(ctx context.Context, stack string, sources []Source, opts Options) (*Project, error) {
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

	files := &scan{env: env, places: map[string]place{}}
	for _, s := range sources {
		files.source(s)
	}
	if len(files.problems) > 0 {
		return nil, newProblems(files.problems)
	}
	model, err := loadModel(ctx, stack, sources, opts, files)
	if err != nil {
		return nil, err
	}
	c := &converter{stack: stack, dir: opts.WorkingDir, model: model, scan: files, project: &Project{}}
	c.convert()
	if len(files.problems) > 0 {
		return nil, newProblems(files.problems)
	}
	c.project.Warnings = newProblems(files.warnings).List
	return c.project, nil
}
