package compose

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"go.yaml.in/yaml/v4"
)

// maxNodes bounds what a file may expand to: aliases of aliases grow
// exponentially.
const maxNodes = 100_000

// place is where a key and its value stand.
type place struct {
	file      string
	line, col int // of the value if it is a scalar, else of the key
}

// scan goes over the YAML of the compose files: it holds every key against the
// table and remembers where everything stands, since what compose-go reports
// has no lines and what it returns no longer shows what was written.
type scan struct {
	dir      string // absolute, where the paths in the files given start
	env      map[string]string
	current  *source
	base     bool // it is extended: what extends it wins
	files    int  // named by others
	nodes    int
	active   []*yaml.Node // anchors being followed
	places   map[string]place
	problems []Problem
	warnings []Problem
}

// file scans one of the compose files, all its documents.
func (s *scan) file(src Source) {
	s.current, s.nodes = &source{name: src.Name, dir: s.dir}, 0
	if src.Name != "-" {
		if path, err := filepath.Abs(src.Name); err == nil {
			s.current.path = path
		}
	}
	s.documents(src.Content, s.root)
}

// root scans a document, and the files it includes.
func (s *scan) root(n *yaml.Node) {
	s.include(n)
	s.mapping(n, "", "")
}

func (s *scan) fail(at *yaml.Node, path, message, hint string) {
	s.problems = append(s.problems, s.problem(at, path, message, hint))
}

func (s *scan) warn(at *yaml.Node, path, message, hint string) {
	s.warnings = append(s.warnings, s.problem(at, path, message, hint))
}

func (s *scan) problem(at *yaml.Node, path, message, hint string) Problem {
	return Problem{File: s.current.name, Line: at.Line, Column: at.Column, Path: path, Message: message, Hint: hint}
}

// failAt and warnAt are for what only shows in the loaded model: they find the
// place of the path, or of what is nearest above it.
func (s *scan) failAt(path, message, hint string) {
	s.problems = append(s.problems, s.problemAt(path, message, hint))
}

func (s *scan) warnAt(path, message, hint string) {
	s.warnings = append(s.warnings, s.problemAt(path, message, hint))
}

func (s *scan) problemAt(path, message, hint string) Problem {
	p := Problem{Path: path, Message: message, Hint: hint}
	for at := path; at != ""; at = at[:max(strings.LastIndexAny(at, ".["), 0)] {
		if found, ok := s.places[at]; ok {
			p.File, p.Line, p.Column = found.file, found.line, found.col
			return p
		}
	}
	p.File = s.current.name
	return p
}

// value scans what stands at path. pattern is the path as the table has it.
func (s *scan) value(n *yaml.Node, path, pattern string) {
	s.nodes++
	if s.nodes > maxNodes {
		if s.nodes == maxNodes+1 {
			s.fail(n, path, fmt.Sprintf("the file expands to more than %d values", maxNodes), "")
		}
		return
	}
	switch n.Kind {
	case yaml.AliasNode:
		if slices.Contains(s.active, n.Alias) {
			s.fail(n, path, "the alias *"+n.Value+" contains itself", "")
			return
		}
		s.active = append(s.active, n.Alias)
		s.value(n.Alias, path, pattern)
		s.active = s.active[:len(s.active)-1]
	case yaml.MappingNode:
		if len(below[pattern]) > 0 {
			s.mapping(n, path, pattern)
		}
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			s.check(n, "", path, pattern)
		}
		s.unique(n, path, pattern)
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			s.place(at, item)
			s.value(item, at, pattern+".[]")
		}
	case yaml.ScalarNode:
		if n.ShortTag() != "!!null" {
			s.check(n, s.interpolate(n, path), path, pattern)
		}
	}
}

// mapping scans the keys of n. Those it merges in come first, so that the place
// of a key is the one that wins.
func (s *scan) mapping(n *yaml.Node, path, pattern string) {
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.ShortTag() == "!!merge" {
			s.merged(n.Content[i+1], path, pattern)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.ShortTag() == "!!merge":
			continue
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			s.fail(key, path, "a key has to be a text", "put it in quotes")
			continue
		case lines[key.Value] > 0:
			s.fail(key, below1(path, key.Value), fmt.Sprintf("given twice, first on line %d", lines[key.Value]), "")
			continue
		}
		lines[key.Value] = key.Line
		s.key(key, value, path, pattern)
	}
}

func (s *scan) merged(n *yaml.Node, path, pattern string) {
	switch n.Kind {
	case yaml.SequenceNode:
		for _, item := range n.Content {
			s.merged(item, path, pattern)
		}
	default:
		s.value(n, path, pattern)
	}
}

// key holds one key against the table, and goes on below it.
func (s *scan) key(key, value *yaml.Node, path, pattern string) {
	name := key.Value
	at := below1(path, name)
	known := below[pattern]
	child := below1(pattern, name)
	if !slices.Contains(known, name) {
		extension := strings.HasPrefix(name, "x-")
		switch {
		case slices.Contains(known, "*"):
			child = below1(pattern, "*")
			if extension && strings.Contains(pattern, ".") {
				s.fail(key, at, "in a mapping, names that begin with x- are extensions of the file",
					`write it as a list item, - "`+name+`=..."`)
				return
			}
		case extension:
			return
		default:
			s.fail(key, at, "unknown key", didYouMean(name, pattern))
			return
		}
	}
	where := key
	if value.Kind == yaml.ScalarNode && value.ShortTag() != "!!null" {
		where = value
	}
	if child == "services.*.extends" {
		s.extends(value, path)
	}
	s.place(at, where)
	if value.Tag == "!reset" {
		return // the key is taken away again
	}
	switch r := rules[child]; r.verdict {
	case warned:
		s.warn(key, at, r.say, "")
	case refused:
		s.fail(key, at, r.say, "")
	default:
		s.value(value, at, child)
	}
}

// place remembers where the value at a path stands.
func (s *scan) place(at string, n *yaml.Node) {
	if _, known := s.places[at]; known && s.base {
		return
	}
	s.places[at] = place{s.current.name, n.Line, n.Column}
}

// lookup finds variables in an environment.
func lookup(env map[string]string) template.Mapping {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// interpolated is a scalar, its variables filled in; what is wrong with them is told
// elsewhere.
func (s *scan) interpolated(n *yaml.Node) string {
	v, err := template.SubstituteWithOptions(n.Value, lookup(s.env), template.WithoutLogging)
	if err != nil {
		return n.Value
	}
	return v
}

// interpolate fills the variables of a scalar in, as compose-go will.
func (s *scan) interpolate(n *yaml.Node, path string) string {
	if !strings.Contains(n.Value, "$") || n.ShortTag() != "!!str" {
		return n.Value
	}
	replace := func(text string, lookup template.Mapping, cfg *template.Config) (string, error) {
		v, set, err := template.DefaultReplacementAppliedFunc(text, lookup, cfg)
		if err == nil && !set {
			s.warn(n, path, "the variable "+strings.Trim(text, "${}")+" is not set; it is taken as empty", "")
		}
		return v, err
	}
	v, err := template.SubstituteWithOptions(n.Value, lookup(s.env), template.WithoutLogging, template.WithReplacementFunction(replace))
	var missing *template.MissingRequiredError
	switch {
	case errors.As(err, &missing):
		message := "the variable " + missing.Variable + " has to be set"
		if missing.Reason != "" {
			message += ": " + missing.Reason
		}
		s.fail(n, path, message, "")
	case err != nil:
		s.fail(n, path, fmt.Sprintf("%q has a $ that begins no variable", excerpt(n.Value)), "write $$ for a dollar sign")
	}
	return v
}

// excerpt is the part of a text about its first $.
func excerpt(text string) string {
	const about = 40 // bytes before and behind
	if len(text) <= 2*about {
		return text
	}
	at := strings.IndexByte(text, '$')
	return strings.ToValidUTF8(text[max(0, at-about):min(len(text), at+about)], "")
}

// below1 is the path of a key below path.
func below1(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

var yamlPosition = regexp.MustCompile(`line (\d+)(?:, column (\d+))?: `)

// yamlProblem takes the position out of an error of the YAML parser. The parser
// has three kinds of error that count differently, in types that it does not
// export: see the test for each.
func yamlProblem(file string, err error) Problem {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	p := Problem{File: file, Message: "not YAML: " + message}
	found := yamlPosition.FindAllStringSubmatchIndex(message, -1)
	if len(found) == 0 {
		return p
	}
	last := found[len(found)-1]
	p.Message = "not YAML: " + message[last[1]:]
	p.Line, _ = strconv.Atoi(message[last[2]:last[3]])
	p.Column = 1
	if last[4] >= 0 {
		p.Column, _ = strconv.Atoi(message[last[4]:last[5]])
	}
	switch fmt.Sprintf("%T", err) {
	case "libyaml.ParserError": // lines count from 0
		p.Line++
	case "*libyaml.ParserError": // columns count from 2
		p.Column--
	}
	return p
}
