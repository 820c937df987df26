package compose

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/orch-dev/orch/pkg/api"
)

// Secrets and configs have the same keys, but for how they are made.
var fileRules = slices.Concat(
	fileRulesOf("secrets"),
	fileRulesOf("configs"),
	[]rule{
		{"secrets.*.driver", refused, "secrets come from files, from variables, or from orch secret create"},
		{"secrets.*.driver_opts", refused, "secrets come from files, from variables, or from orch secret create"},
		{"configs.*.content", honoured, ""},
	},
)

func fileRulesOf(kind string) []rule {
	top, used := kind+".*", "services.*."+kind
	return []rule{
		{kind, honoured, ""},
		{top, honoured, ""},
		{top + ".environment", honoured, ""},
		{top + ".external", honoured, ""},
		{top + ".external.name", honoured, ""},
		{top + ".file", honoured, ""},
		{top + ".labels", honoured, ""},
		{top + ".labels.*", honoured, ""},
		{top + ".name", honoured, ""},
		{top + ".template_driver", refused, "templates are not filled in; use variables of the compose file in content"},
		{used, honoured, ""},
		{used + ".[].gid", honoured, ""},
		{used + ".[].mode", honoured, ""},
		{used + ".[].source", honoured, ""},
		{used + ".[].target", honoured, ""},
		{used + ".[].uid", honoured, ""},
	}
}

// fileKinds are the keys of both, by class.
var fileKinds = []struct {
	class api.FileClass
	kind  string
}{{api.ClassConfig, "configs"}, {api.ClassSecret, "secrets"}}

var decimalMode = regexp.MustCompile(`^[1-9][0-9]*$`)

// checkFileMode warns about a number that its writer will have meant in octal.
func checkFileMode(value string) finding {
	if n, err := strconv.Atoi(value); err == nil && decimalMode.MatchString(value) {
		return finding{warned, fmt.Sprintf("%s is decimal, which is the mode %04o", value, n), fmt.Sprintf("write 0%s if that is what you mean", value)}
	}
	return finding{}
}

// declared are the model's secrets or configs.
func (c *converter) declared(class api.FileClass) map[string]types.FileObjectConfig {
	all := make(map[string]types.FileObjectConfig)
	if class == api.ClassSecret {
		for key, f := range c.model.Secrets {
			all[key] = types.FileObjectConfig(f)
		}
		return all
	}
	for key, f := range c.model.Configs {
		all[key] = types.FileObjectConfig(f)
	}
	return all
}

// serviceFiles are the secrets and configs of a service. mounts are what else is
// mounted into its tasks.
func (c *converter) serviceFiles(at string, in types.ServiceConfig, mounts []api.Mount) []api.FileRef {
	used := map[api.FileClass][]types.FileReferenceConfig{}
	for _, ref := range in.Secrets {
		used[api.ClassSecret] = append(used[api.ClassSecret], types.FileReferenceConfig(ref))
	}
	for _, ref := range in.Configs {
		used[api.ClassConfig] = append(used[api.ClassConfig], types.FileReferenceConfig(ref))
	}
	taken := map[string]bool{}
	for _, m := range mounts {
		taken[path.Clean(m.Target)] = true
	}
	var refs []api.FileRef
	for _, k := range fileKinds {
		for i, in := range used[k.class] {
			at := fmt.Sprintf("%s.%s[%d]", at, k.kind, i)
			ref, ok := c.fileRef(at, k.class, k.kind, in)
			if !ok {
				continue
			}
			if taken[ref.Target] {
				c.failAt(at, "something else is mounted on "+ref.Target+" too", "")
			}
			taken[ref.Target] = true
			refs = append(refs, ref)
		}
	}
	return refs
}

func (c *converter) fileRef(at string, class api.FileClass, kind string, in types.FileReferenceConfig) (api.FileRef, bool) {
	file, ok := c.declared(class)[in.Source]
	if !ok {
		c.failAt(at, fmt.Sprintf("there is no %s %q", class, in.Source), "declare it under "+kind+" at the top level")
		return api.FileRef{}, false
	}
	ref := api.FileRef{
		Class: class, Name: file.Name, Target: class.DefaultTarget(in.Source), Mode: api.DefaultFileMode,
		UID: c.ownerID(at+".uid", in.UID), GID: c.ownerID(at+".gid", in.GID),
	}
	switch {
	case path.IsAbs(in.Target):
		ref.Target = path.Clean(in.Target)
	case in.Target != "":
		ref.Target = path.Clean(class.DefaultTarget(in.Target))
	}
	if ref.Target == "/" {
		c.failAt(at+".target", in.Target+" is no file", "")
	}
	if in.Mode != nil {
		if ref.Mode = uint32(*in.Mode); *in.Mode < 0 || *in.Mode > 0o777 {
			c.failAt(at+".mode", fmt.Sprintf("%#o is no mode of a file", int64(*in.Mode)), "give at most 0777")
		}
	}
	return ref, true
}

// ownerID is a user or group of a file, by number.
func (c *converter) ownerID(at, text string) uint32 {
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		c.failAt(at, fmt.Sprintf("%q is not a number", text), "names are the image's, and are not known outside of it")
	}
	return uint32(n)
}

// files lists the secrets and configs that services use, and tells of the others.
func (c *converter) files() {
	for _, k := range fileKinds {
		used := map[string]bool{}
		for _, s := range c.project.Services {
			for _, ref := range s.Task.Files {
				used[ref.Name] = used[ref.Name] || ref.Class == k.class
			}
		}
		byName := map[string]api.FileSpec{}
		declared := c.declared(k.class)
		for _, key := range slices.Sorted(maps.Keys(declared)) {
			f, at := declared[key], k.kind+"."+key
			if !used[f.Name] {
				c.warnAt(at, "no service uses it; it is not made", "")
				continue
			}
			spec := api.FileSpec{Class: k.class, Name: f.Name, Labels: plain(f.Labels), External: bool(f.External)}
			if !spec.External {
				spec.Data = c.content(at, k.class, f)
			}
			byName[f.Name] = spec
		}
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			c.project.Files = append(c.project.Files, byName[name])
		}
	}
}

// content reads what a secret or config is declared to have in it.
func (c *converter) content(at string, class api.FileClass, f types.FileObjectConfig) []byte {
	var data []byte
	switch {
	case f.Environment != "":
		value, ok := c.env[f.Environment]
		if !ok {
			c.failAt(at+".environment", "the variable "+f.Environment+" has to be set", "")
			return nil
		}
		data = []byte(value)
	case f.File != "":
		var err error
		if data, err = readFile(f.File, c.dir, class.MaxSize()+1); err != nil {
			c.failAt(at+".file", cannotRead(f.File, c.dir, err), "")
			return nil
		}
	default: // that one of the three is given, compose-go has seen to
		data = []byte(f.Content)
	}
	switch n := len(data); {
	case n == 0:
		c.failAt(at, "there is nothing in it", "")
	case n > class.MaxSize():
		c.failAt(at, fmt.Sprintf("it is larger than %d bytes", class.MaxSize()), "mount a volume for larger files")
	}
	return data
}

// readFile reads a file, relative to dir, up to a size.
func readFile(name, dir string, most int) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(dir, name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(most)))
	return data, errors.Join(err, f.Close())
}
