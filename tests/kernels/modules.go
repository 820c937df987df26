package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// wantedModules are what the tests need beside what every kernel has built in.
var wantedModules = []string{"veth", "bridge", "sch_ingress", "cls_bpf", "wireguard"}

// module is a part of a kernel, ready to load.
type module struct {
	name    string
	content []byte
}

// moduleSet is the modules that a kernel comes with.
type moduleSet struct {
	files   map[string]string // name -> path
	builtin map[string]bool
	have    map[string]bool // in order already
	order   []module
}

// loadModules gives the modules by these names, each after those that it needs.
func loadModules(dir string, names []string) ([]module, error) {
	s := &moduleSet{files: make(map[string]string), builtin: make(map[string]bool), have: make(map[string]bool)}
	list, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		s.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	err = filepath.WalkDir(filepath.Join(dir, "kernel"), func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), ".ko") {
			s.files[moduleName(path)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := s.add(name); err != nil {
			return nil, err
		}
	}
	return s.order, nil
}

// moduleName is the one that modules name each other by.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return strings.ReplaceAll(name, "-", "_")
}

func (s *moduleSet) add(name string) error {
	if s.have[name] || s.builtin[name] {
		return nil
	}
	s.have[name] = true
	path, ok := s.files[name]
	if !ok {
		return fmt.Errorf("the kernel has no module %s", name)
	}
	content, err := unpackModule(path)
	if err != nil {
		return err
	}
	needs, err := needed(content)
	if err != nil {
		return fmt.Errorf("read module %s: %w", name, err)
	}
	for _, other := range needs {
		if err := s.add(other); err != nil {
			return fmt.Errorf("%w, which %s needs", err, name)
		}
	}
	s.order = append(s.order, module{name: name, content: content})
	return nil
}

func unpackModule(path string) ([]byte, error) {
	switch filepath.Ext(path) {
	case ".xz":
		return exec.Command("xz", "--decompress", "--stdout", path).Output()
	case ".zst":
		return exec.Command("zstd", "--decompress", "--stdout", path).Output()
	}
	return os.ReadFile(path)
}

// needed reads the names of the modules that one needs.
func needed(content []byte) ([]string, error) {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("it has no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, field := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			for _, name := range strings.Split(list, ",") {
				names = append(names, moduleName(name))
			}
		}
	}
	return names, nil
}
