package api

import (
	"regexp"
	"slices"
)

// Limits on what one request may ask for.
const (
	MaxReplicas = 100_000
	MaxServices = 10_000
	maxName     = 63 // a DNS label (RFC 1035)

	maxNetworkName = 255
)

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$`)

// ValidateName checks the name of a stack, service or network.
func ValidateName(kind, name string) error {
	if len(name) > maxName || !namePattern.MatchString(name) {
		return Errorf(CodeInvalid, "%s name %q: use 1 to %d lower-case letters, digits, - and _, beginning and ending with a letter or digit", kind, name, maxName)
	}
	return nil
}

var hostnamePattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,252})$`)

// Validate checks what a joining node says of itself.
func (n *Node) Validate() error {
	switch {
	case !IsID(string(n.ID)):
		return Errorf(CodeInvalid, "node ID %q: it is %d characters of 0-9 and a-z", n.ID, IDLength)
	case !hostnamePattern.MatchString(n.Hostname):
		return Errorf(CodeInvalid, "node name %q: use 1 to 253 letters, digits, - and .", n.Hostname)
	case n.GossipPort == 0:
		return Errorf(CodeInvalid, "node %s: the port of gossip must be given", n.Hostname)
	}
	return n.ValidateAddr()
}

// ValidateAddr checks where the node says that it is.
func (n *Node) ValidateAddr() error {
	switch {
	case !n.Addr.Is4() || n.Addr.IsUnspecified() || n.Addr.IsMulticast():
		return Errorf(CodeInvalid, "node %s: address %q: it must be the node's IPv4 address", n.Hostname, n.Addr)
	case n.APIPort == 0:
		return Errorf(CodeInvalid, "node %s: the port of its API must be given", n.Hostname)
	}
	return nil
}

// Validate checks what can be checked without knowing the cluster.
func (r *DeployRequest) Validate() error {
	if err := ValidateName("stack", r.Stack); err != nil {
		return err
	}
	if len(r.Services) == 0 {
		return Errorf(CodeInvalid, "stack %s has no services", r.Stack)
	}
	if len(r.Services) > MaxServices {
		return Errorf(CodeInvalid, "stack %s has %d services; at most %d are possible", r.Stack, len(r.Services), MaxServices)
	}
	if err := r.validateFiles(); err != nil {
		return err
	}
	networks := make(map[string]bool)
	for _, n := range r.Networks {
		if n.Name == "" || len(n.Name) > maxNetworkName { // else it is any that the compose file gives it
			return Errorf(CodeInvalid, "network %.40q: its name has 1 to %d bytes", n.Name, maxNetworkName)
		}
		if networks[n.Name] {
			return Errorf(CodeInvalid, "network %s is there twice", n.Name)
		}
		networks[n.Name] = true
	}
	seen := make(map[string]bool)
	for i := range r.Services {
		spec := &r.Services[i]
		if err := spec.validate(networks); err != nil {
			return err
		}
		if seen[spec.Name] {
			return Errorf(CodeInvalid, "service %s is there twice", spec.Name)
		}
		seen[spec.Name] = true
	}
	return nil
}

func (s *ServiceSpec) validate(networks map[string]bool) error {
	if err := ValidateName("service", s.Name); err != nil {
		return err
	}
	if err := s.ValidateSize(); err != nil {
		return err
	}
	if s.Task.Image == "" {
		return Errorf(CodeInvalid, "service %s names no image", s.Name)
	}
	switch s.Mode {
	case ModeReplicated, ModeGlobal, ModeReplicatedJob, ModeGlobalJob:
	default:
		return Errorf(CodeInvalid, "service %s: unknown mode %q: use replicated, global, replicated-job or global-job", s.Name, s.Mode)
	}
	if s.MaxConcurrent < 0 || s.MaxConcurrent > 0 && s.Mode != ModeReplicatedJob {
		return Errorf(CodeInvalid, "service %s: a number of tasks that run at the same time is for replicated jobs, and not negative", s.Name)
	}
	if s.Task.Singleton && (s.Mode != ModeReplicated || s.Replicas > 1) {
		return Errorf(CodeInvalid, "service %s is a singleton: its mode is replicated, with one replica", s.Name)
	}
	if s.Replicas < 0 || s.Replicas > MaxReplicas {
		return Errorf(CodeInvalid, "service %s: %d replicas: give 0 to %d", s.Name, s.Replicas, MaxReplicas)
	}
	if err := s.ValidateUpdates(); err != nil {
		return err
	}
	for _, n := range s.Networks {
		if !networks[n] {
			return Errorf(CodeInvalid, "service %s is on network %s, which the stack does not name", s.Name, n)
		}
	}
	for _, n := range SortedKeys(s.NetworkAliases) {
		if !slices.Contains(s.Networks, n) {
			return Errorf(CodeInvalid, "service %s has names on network %s, which it is not on", s.Name, n)
		}
	}
	if s.EndpointMode != "" && s.EndpointMode != EndpointVIP && s.EndpointMode != EndpointDNSRR {
		return Errorf(CodeInvalid, "service %s: unknown endpoint mode %q: use vip or dnsrr", s.Name, s.EndpointMode)
	}
	if err := s.validateBalance(); err != nil {
		return err
	}
	if !s.Return.Valid() {
		return Errorf(CodeInvalid, "service %s: unknown return %q: use tunnel or dsr", s.Name, s.Return)
	}
	for _, p := range s.Ports {
		if p.Target == 0 || (p.Protocol != TCP && p.Protocol != UDP) {
			return Errorf(CodeInvalid, "service %s: a published port needs a target port and the protocol tcp or udp", s.Name)
		}
	}
	return nil
}

// ValidateUpdates checks the rules for updates and rollbacks. Empty orders and
// actions are the defaults.
func (s *ServiceSpec) ValidateUpdates() error {
	if s.ProgressDeadline < 0 {
		return Errorf(CodeInvalid, "service %s: a negative progress deadline", s.Name)
	}
	for what, rules := range map[string]*UpdateConfig{"update": &s.Update, "rollback": &s.Rollback} {
		if problem := rules.problem(what == "rollback"); problem != "" {
			return Errorf(CodeInvalid, "service %s, %s: %s", s.Name, what, problem)
		}
	}
	return nil
}

func (c *UpdateConfig) problem(back bool) string {
	switch {
	case c.Parallelism < 0:
		return "a negative parallelism"
	case c.Delay < 0 || c.Monitor < 0:
		return "a negative time"
	case !(c.MaxFailureRatio >= 0 && c.MaxFailureRatio <= 1):
		return "max_failure_ratio is not between 0 and 1"
	case c.Order != "" && c.Order != StopFirst && c.Order != StartFirst:
		return "the order is neither stop-first nor start-first"
	}
	switch c.FailureAction {
	case "", FailurePause, FailureContinue:
		return ""
	case FailureRollback:
		if !back {
			return ""
		}
		return "failure_action is pause or continue"
	}
	return "failure_action is pause, continue or rollback"
}
