package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
)

func init() {
	// compose-go speaks to people through this process-wide logger. What it has
	// to say is in Project.Warnings, with its place in the file.
	logrus.SetOutput(io.Discard)
}

// loadModel has compose-go parse, merge and complete the files. They have been
// scanned; an error that is found only now is given its place by the path that
// it names.
func loadModel(ctx context.Context, stack string, sources []Source, opts Options, files *scan) (*types.Project, error) {
	details := types.ConfigDetails{WorkingDir: opts.WorkingDir, Environment: opts.Env}
	for _, s := range sources {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: s.Name, Content: s.Content})
	}
	var profiles []string
	for _, p := range strings.Split(opts.Env["COMPOSE_PROFILES"], ",") {
		if p = strings.TrimSpace(p); p != "" {
			profiles = append(profiles, p)
		}
	}
	model, err := loader.LoadWithContext(ctx, details, func(o *loader.Options) {
		o.SetProjectName(stack, true)
		o.Profiles = profiles
		o.SkipConsistencyCheck = true   // the conversion checks, and knows the places
		o.SkipResolveEnvironment = true // done below, once the files are known to be there
		o.SkipResolveLabels = true
	})
	if err != nil {
		return nil, &Problems{List: files.modelProblems(err)}
	}
	for name, service := range model.Services {
		for i, file := range service.EnvFiles {
			if _, err := os.Stat(file.Path); err != nil && bool(file.Required) {
				files.failAt(fmt.Sprintf("services.%s.env_file[%d]", name, i), cannotRead(file.Path, opts.WorkingDir, err), "")
			}
		}
		for i, file := range service.LabelFiles {
			if _, err := os.Stat(file); err != nil {
				files.failAt(fmt.Sprintf("services.%s.label_file[%d]", name, i), cannotRead(file, opts.WorkingDir, err), "")
			}
		}
	}
	if len(files.problems) > 0 {
		return model, nil // without those files; the conversion adds what else is wrong
	}
	if model, err = model.WithServicesEnvironmentResolved(true); err == nil {
		model, err = model.WithServicesLabelsResolved(true)
	}
	if err != nil {
		return nil, &Problems{List: files.modelProblems(err)}
	}
	return model, nil
}

func cannotRead(file, dir string, err error) string {
	if rel, relErr := filepath.Rel(dir, file); relErr == nil && !strings.HasPrefix(rel, "..") {
		file = rel
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Sprintf("cannot read %s: %v", file, err)
}

const noServices = "there are no services"

var (
	// modelPath finds a path such as services.web.image in an error's text, or
	// services[web].image.
	modelPath = regexp.MustCompile(`'?\b(?:services|networks|volumes|secrets|configs)(?:\.[^\s.:'\[]+|\.?\[[^\]]*\])*'?`)
	// modelNoise is how compose-go leads up to what matters.
	modelNoise = regexp.MustCompile(`^(validating [^:]*: |error while interpolating |failed to parse [^:]*: )`)
	modelIndex = regexp.MustCompile(`\[([^\]]*)\]|\.(\d+)\b`)
	modelParse = regexp.MustCompile(`strconv\.\w+: parsing ("[^"]*"): .*`)
)

// modelProblems turns an error of compose-go into problems with places, as far
// as it says where.
func (s *scan) modelProblems(err error) []Problem {
	text := err.Error()
	lines := []string{text}
	if _, list, ok := strings.Cut(text, "decoding failed due to the following error(s):"); ok {
		lines = strings.Split(strings.TrimSpace(list), "\n")
	}
	if text == "empty compose file" {
		lines = []string{"services: " + noServices}
	}
	var problems []Problem
	for _, line := range lines {
		line = modelNoise.ReplaceAllString(strings.TrimSpace(line), "")
		path := modelPath.FindString(line)
		message := plainWords(strings.TrimLeft(strings.Replace(line, path, "", 1), ": "))
		problems = append(problems, s.problemAt(showPath(path), message, ""))
	}
	return newProblems(problems).List
}

// showPath writes compose-go's path the way that scan does: list items in
// brackets, everything else after a dot.
func showPath(path string) string {
	path = strings.TrimRight(strings.Trim(path, "'"), ".")
	return modelIndex.ReplaceAllStringFunc(path, func(part string) string {
		key := strings.Trim(part, ".[]")
		switch {
		case key == "":
			return ""
		case strings.Trim(key, "0123456789") == "":
			return "[" + key + "]"
		}
		return "." + key
	})
}

func plainWords(message string) string {
	message = strings.TrimPrefix(message, "failed to cast to expected type: ")
	message = modelParse.ReplaceAllString(message, "$1 is not a number")
	if value, ok := strings.CutPrefix(message, "time: invalid duration "); ok {
		message = value + " is not a duration; write it like 10s or 1m30s"
	}
	return strings.TrimSpace(message)
}
