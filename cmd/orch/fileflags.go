package main

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
)

// fileFlags change which secrets, or which configs, a service has.
type fileFlags struct {
	class       api.FileClass
	add, remove []string
}

func (f *fileFlags) define(cmd *cobra.Command, class api.FileClass) {
	f.class = class
	cmd.Flags().StringArrayVar(&f.add, string(class)+"-add", nil,
		fmt.Sprintf("add or replace a %s, NAME or source=NAME,target=PATH,uid=N,gid=N,mode=0444", class))
	cmd.Flags().StringArrayVar(&f.remove, string(class)+"-rm", nil, fmt.Sprintf("remove a %s, NAME", class))
}

// into adds what was given to a request.
func (f *fileFlags) into(req *api.UpdateRequest) error {
	for _, text := range f.add {
		ref, err := parseFileRef(f.class, text)
		if err != nil {
			return fmt.Errorf("--%s-add %q: %w", f.class, text, err)
		}
		req.AddFiles = append(req.AddFiles, ref)
	}
	for _, name := range f.remove {
		req.RemoveFiles = append(req.RemoveFiles, api.FileRef{Class: f.class, Name: name})
	}
	return nil
}

// parseFileRef reads NAME, or source=NAME with what else is given.
func parseFileRef(class api.FileClass, text string) (api.FileRef, error) {
	ref := api.FileRef{Class: class, Mode: api.DefaultFileMode}
	if !strings.Contains(text, "=") {
		text = "source=" + text
	}
	for _, part := range strings.Split(text, ",") {
		key, value, _ := strings.Cut(part, "=")
		var err error
		switch key {
		case "source":
			ref.Name = value
		case "target":
			ref.Target = value
		case "uid":
			ref.UID, err = number(value, 10)
		case "gid":
			ref.GID, err = number(value, 10)
		case "mode":
			ref.Mode, err = number(value, 8)
		default:
			err = fmt.Errorf("unknown key %q: use source, target, uid, gid and mode", key)
		}
		if err != nil {
			return ref, err
		}
	}
	if ref.Name == "" {
		return ref, fmt.Errorf("it names no %s", class)
	}
	if ref.Target == "" {
		ref.Target = ref.Name
	}
	if !path.IsAbs(ref.Target) {
		ref.Target = class.DefaultTarget(ref.Target)
	}
	ref.Target = path.Clean(ref.Target)
	return ref, nil
}

func number(text string, base int) (uint32, error) {
	n, err := strconv.ParseUint(text, base, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number of base %d", text, base)
	}
	return uint32(n), nil
}
