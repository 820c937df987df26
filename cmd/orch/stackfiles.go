package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/compose"
)

const stackFilesHelp = `Without -c the files are those of COMPOSE_FILE, or compose.yaml (or compose.yml, docker-compose.yaml,
docker-compose.yml) of this directory and the .override file beside it. Variables come from the environment,
and from the .env file beside the first file. A stack without a name gets that of COMPOSE_PROJECT_NAME, else of
the file, else of the directory.`

// stackFiles are the flags that say what a stack is made of.
type stackFiles struct {
	files, envFiles, profiles []string
}

func (s *stackFiles) define(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&s.files, "compose-file", "c", nil, "a compose file, - for standard input; a later one overrides an earlier one")
	cmd.Flags().StringArrayVar(&s.envFiles, "env-file", nil, "a file of variables, instead of .env")
	cmd.Flags().StringArrayVar(&s.profiles, "profile", nil, "also deploy the services of this profile")
}

// load reads compose files into a request, and prints their warnings. args may
// have the name of the stack.
func (s *stackFiles) load(cmd *cobra.Command, args []string) (*api.DeployRequest, *compose.Project, error) {
	env := environment()
	files, err := s.names(env)
	if err != nil {
		return nil, nil, err
	}
	dir, err := filepath.Abs(filepath.Dir(files[0]))
	if err != nil {
		return nil, nil, err
	}
	if env, err = compose.ProjectEnvironment(env, dir, s.envFiles); err != nil {
		return nil, nil, fmt.Errorf("read the variables of the compose file: %w", err)
	}
	if len(s.profiles) > 0 {
		env["COMPOSE_PROFILES"] = strings.Join(append(s.profiles, env["COMPOSE_PROFILES"]), ",")
	}
	var sources []compose.Source
	for _, name := range files {
		content, err := readSource(cmd.InOrStdin(), name)
		if err != nil {
			return nil, nil, fmt.Errorf("read the compose file: %w", err)
		}
		sources = append(sources, compose.Source{Name: name, Content: content})
	}
	stack := ""
	if len(args) > 0 {
		stack = args[0]
	}
	project, err := compose.Load(cmd.Context(), stack, sources, compose.Options{Env: env, WorkingDir: dir})
	if err != nil {
		return nil, nil, err
	}
	for _, w := range project.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
	}
	req := &api.DeployRequest{Stack: project.Stack, Services: project.Services, Files: project.Files}
	for _, n := range project.Networks {
		req.Networks = append(req.Networks, api.NetworkSpec(n))
	}
	return req, project, nil
}

// defaultFiles are the names that a compose file has where none is given, the first
// that is there being taken.
var defaultFiles = []string{"compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"}

// names are the compose files to read, at least one.
func (s *stackFiles) names(env map[string]string) ([]string, error) {
	if len(s.files) > 0 {
		return s.files, nil
	}
	if list := env["COMPOSE_FILE"]; list != "" {
		separator := env["COMPOSE_PATH_SEPARATOR"]
		if separator == "" {
			separator = string(os.PathListSeparator)
		}
		return strings.Split(list, separator), nil
	}
	for _, name := range defaultFiles {
		if !isFile(name) {
			continue
		}
		files := []string{name}
		base := strings.TrimSuffix(name, filepath.Ext(name))
		for _, ext := range []string{".yaml", ".yml"} {
			if over := base + ".override" + ext; isFile(over) {
				return append(files, over), nil
			}
		}
		return files, nil
	}
	return nil, fmt.Errorf("there is no %s here: say which compose file to deploy, with -c", strings.Join(defaultFiles, ", "))
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && !info.IsDir()
}

func readSource(stdin io.Reader, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

func environment() map[string]string {
	env := make(map[string]string)
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	return env
}
