package api

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Some texts of a task's spec (the host name, the environment, the sources of its
// mounts) may have placeholders, as Docker Swarm's have: {{.Node.Hostname}}. They
// are filled in on the node that runs the task.
var placeholders = map[string]func(t *Task, on *Node) string{
	"Service.ID":                 func(t *Task, _ *Node) string { return string(t.ServiceID) },
	"Service.Name":               func(t *Task, _ *Node) string { return t.ServiceName },
	"Task.ID":                    func(t *Task, _ *Node) string { return string(t.ID) },
	"Task.Name":                  func(t *Task, _ *Node) string { return t.Name() },
	"Task.Slot":                  slotOf,
	"Node.ID":                    func(_ *Task, on *Node) string { return string(on.ID) },
	"Node.Hostname":              func(_ *Task, on *Node) string { return on.Hostname },
	"Node.Platform.OS":           func(_ *Task, on *Node) string { return on.Info.OS },
	"Node.Platform.Architecture": func(_ *Task, on *Node) string { return on.Info.Arch },
}

// Placeholders are the names that a template can have between {{. and }}.
func Placeholders() []string { return SortedKeys(placeholders) }

var placeholder = regexp.MustCompile(`\{\{[^{}]*\}\}`)

// UnknownPlaceholders are those of a text that nothing is known to fill in.
func UnknownPlaceholders(text string) []string {
	return slices.DeleteFunc(placeholder.FindAllString(text, -1), func(p string) bool {
		return placeholders[placeholderName(p)] != nil
	})
}

func placeholderName(p string) string {
	name, _ := strings.CutPrefix(strings.TrimSpace(strings.Trim(p, "{}")), ".")
	return name
}

// Fill fills in the placeholders of a text of t's spec. What only a node knows
// stays if on is nil, and so does what is no placeholder.
func (t *Task) Fill(text string, on *Node) string {
	if !strings.Contains(text, "{{") {
		return text
	}
	return placeholder.ReplaceAllStringFunc(text, func(p string) string {
		name := placeholderName(p)
		fill := placeholders[name]
		if fill == nil || on == nil && strings.HasPrefix(name, "Node.") {
			return p
		}
		return fill(t, on)
	})
}

// Filled is the task with all placeholders of its spec filled in: t itself if it has
// none.
func (t *Task) Filled(on *Node) *Task {
	s := &t.Spec
	has := strings.Contains(s.Hostname, "{{") ||
		slices.ContainsFunc(s.Env, func(e string) bool { return strings.Contains(e, "{{") }) ||
		slices.ContainsFunc(s.Mounts, func(m Mount) bool { return strings.Contains(m.Source, "{{") })
	if !has {
		return t
	}
	c := *t
	c.Spec.Hostname = t.Fill(s.Hostname, on)
	c.Spec.Env, c.Spec.Mounts = slices.Clone(s.Env), slices.Clone(s.Mounts)
	for i, e := range c.Spec.Env {
		c.Spec.Env[i] = t.Fill(e, on)
	}
	for i, m := range c.Spec.Mounts {
		c.Spec.Mounts[i].Source = t.Fill(m.Source, on)
	}
	return &c
}

// slotOf is the slot's number; a task of a global service is told by its node.
func slotOf(t *Task, _ *Node) string {
	if t.Slot == 0 {
		return string(t.NodeID)
	}
	return strconv.Itoa(t.Slot)
}
