package compose

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"go.yaml.in/yaml/v4"
)

const (
	// maxFile bounds a file that another names, in bytes.
	maxFile = 4 << 20
	// maxFiles bounds how many files one deploy is made of.
	maxFiles = 200
)

// source is a file being scanned.
type source struct {
	name string // as messages have it
	path string // absolute, "" for what was given as bytes
	dir  string // absolute, where the paths in it start
	by   *source

	content []byte
}

// include scans the files that a file, whose top level is root, includes. Their
// variables come from the environment and from .env files of their own.
func (s *scan) include(root *yaml.Node) {
	list := field(root, "include")
	if list == nil || list.Kind != yaml.SequenceNode {
		return // compose-go says what is wrong
	}
	for i, item := range list.Content {
		at := fmt.Sprintf("include[%d]", i)
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		names := []*yaml.Node{item}
		dir, env := "", s.env
		if item.Kind == yaml.MappingNode {
			names = scalars(field(item, "path"))
			if n := field(item, "project_directory"); n != nil {
				dir = s.current.abs(s.interpolated(n))
			}
		}
		for k, n := range names {
			file := s.follow(n, at, s.interpolated(n))
			if file == nil {
				continue
			}
			if k == 0 {
				if dir == "" {
					dir = filepath.Dir(file.path)
				}
				env = s.includedEnv(item, at, dir)
			}
			file.dir = dir
			s.within(file, env, func(root *yaml.Node) { s.root(root) })
		}
	}
}

// includedEnv is the environment of included files: that of the file which includes
// them, completed from the env_file of the item, or the .env beside them.
func (s *scan) includedEnv(item *yaml.Node, at, dir string) map[string]string {
	var files []string
	given := field(item, "env_file")
	for _, n := range scalars(given) {
		if name := s.interpolated(n); name != os.DevNull {
			files = append(files, s.current.abs(name))
		}
	}
	if given == nil {
		files = dotEnv(dir)
	}
	env, err := Environment(s.env, files)
	if err != nil {
		s.fail(item, at, err.Error(), "")
		return s.env
	}
	return env
}

// extends scans the service of another file that the service at path extends.
// What is found there stands, for the rest of the program, at path.
func (s *scan) extends(value *yaml.Node, path string) {
	from, service := field(value, "file"), field(value, "service")
	if from == nil || service == nil {
		return // of the same file, which is scanned anyway
	}
	at := below1(path, "extends.file")
	file := s.follow(from, at, s.interpolated(from))
	if file == nil {
		return
	}
	file.dir = filepath.Dir(file.path)
	name := s.interpolated(service)
	base := s.base
	s.base = true
	s.within(file, s.env, func(root *yaml.Node) {
		n := field(field(root, "services"), name)
		if n == nil || n.Kind != yaml.MappingNode {
			s.fail(root, at, fmt.Sprintf("there is no service %q in it", name), "")
			return
		}
		s.mapping(n, path, "services.*")
	})
	s.base = base
}

// follow reads the file that n, at a path, names. It is nil if it cannot be read,
// which is a problem by then.
func (s *scan) follow(n *yaml.Node, at, name string) *source {
	file := &source{name: name, path: s.current.abs(name), by: s.current}
	if s.current.name != "-" && !filepath.IsAbs(name) {
		file.name = filepath.Join(filepath.Dir(s.current.name), name)
	}
	if strings.Contains(name, "://") {
		s.fail(n, at, name+" is not on this machine", "fetch it, and give its path")
		return nil
	}
	round := []string{file.name}
	for by := s.current; by != nil; by = by.by {
		round = append(round, by.name)
		if by.path == file.path {
			slices.Reverse(round)
			s.fail(n, at, "files name each other: "+strings.Join(round, " -> "), "")
			return nil
		}
	}
	if s.files++; s.files > maxFiles {
		s.fail(n, at, fmt.Sprintf("more than %d files are named", maxFiles), "")
		return nil
	}
	var err error
	if file.content, err = readFile(file.path, "", maxFile+1); err == nil && len(file.content) > maxFile {
		err = fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	if err != nil {
		s.fail(n, at, cannotRead(file.path, s.dir, err), "")
		return nil
	}
	return file
}

// within scans what is chosen of the documents of a file, then goes on with the
// one that named it.
func (s *scan) within(file *source, env map[string]string, choose func(root *yaml.Node)) {
	outer, outerEnv, nodes := s.current, s.env, s.nodes
	s.current, s.env, s.nodes = file, env, 0
	s.documents(file.content, choose)
	s.current, s.env, s.nodes = outer, outerEnv, nodes
}

// documents hands the top level of each document to choose.
func (s *scan) documents(content []byte, choose func(root *yaml.Node)) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for empty := true; ; empty = false {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			if empty {
				s.problems = append(s.problems, Problem{File: s.current.name, Message: "the file is empty"})
			}
			return
		}
		if err != nil {
			s.problems = append(s.problems, yamlProblem(s.current.name, err))
			return
		}
		root := doc.Content[0]
		if root.Kind != yaml.MappingNode {
			s.fail(root, "", "a compose file is a mapping of keys such as services and networks", "")
			return
		}
		choose(root)
	}
}

// abs is a path as the file has it.
func (f *source) abs(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(f.dir, name)
}

// field is the value of a key of a mapping, nil if n is none or has none.
func field(n *yaml.Node, key string) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// scalars are n, or its items.
func scalars(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	}
	return []*yaml.Node{n}
}

// dotEnv is the list of the .env file of a directory, empty if it has none.
func dotEnv(dir string) []string {
	file := filepath.Join(dir, ".env")
	if info, err := os.Stat(file); err != nil || info.IsDir() {
		return nil
	}
	return []string{file}
}

// Environment completes env from files of lines NAME=VALUE. What env has stays.
func Environment(env map[string]string, files []string) (map[string]string, error) {
	read, err := dotenv.GetEnvFromFile(env, files)
	if err != nil {
		return nil, err
	}
	for name, value := range env {
		read[name] = value
	}
	return read, nil
}

// ProjectEnvironment is env, completed from the given files, or from the .env file
// of the directory of the compose files if none is given and there is one.
func ProjectEnvironment(env map[string]string, dir string, files []string) (map[string]string, error) {
	if len(files) == 0 {
		files = dotEnv(dir)
	}
	return Environment(env, files)
}
