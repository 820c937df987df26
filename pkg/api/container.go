package api

import "net/netip"

// ContainerOptions are what a task's container may have beyond what most do.
// They go to the engine of its node as they are; the zero value is the engine's
// default everywhere.
type ContainerOptions struct {
	Annotations map[string]string `json:"annotations,omitempty"`
	Domainname  string            `json:"domainname,omitempty"`
	GroupAdd    []string          `json:"groupAdd,omitempty"`
	TTY         bool              `json:"tty,omitempty"`
	StdinOpen   bool              `json:"stdinOpen,omitempty"`

	// ExtraHosts are lines of /etc/hosts; DNSSearch and DNSOptions are added to
	// /etc/resolv.conf. DNS are the servers that names outside the cluster are
	// asked of, by the task's node, instead of the node's own.
	ExtraHosts []HostEntry  `json:"extraHosts,omitempty"`
	DNS        []netip.Addr `json:"dns,omitempty"`
	DNSSearch  []string     `json:"dnsSearch,omitempty"`
	DNSOptions []string     `json:"dnsOptions,omitempty"`

	Privileged  bool     `json:"privileged,omitempty"`
	SecurityOpt []string `json:"securityOpt,omitempty"`
	UsernsMode  string   `json:"usernsMode,omitempty"`
	PidMode     string   `json:"pidMode,omitempty"`
	IPCMode     string   `json:"ipcMode,omitempty"`
	CgroupMode  string   `json:"cgroupMode,omitempty"`
	Runtime     string   `json:"runtime,omitempty"`

	Devices           []Device          `json:"devices,omitempty"`
	DeviceRequests    []DeviceRequest   `json:"deviceRequests,omitempty"`
	DeviceCgroupRules []string          `json:"deviceCgroupRules,omitempty"`
	Sysctls           map[string]string `json:"sysctls,omitempty"`
	Ulimits           []Ulimit          `json:"ulimits,omitempty"`
	StorageOpt        map[string]string `json:"storageOpt,omitempty"`

	ShmBytes int64 `json:"shmBytes,omitempty"`
	// MemorySwapBytes is memory and swap together; -1: no limit.
	MemorySwapBytes int64  `json:"memorySwapBytes,omitempty"`
	OOMScoreAdj     int    `json:"oomScoreAdj,omitempty"`
	CPUShares       int64  `json:"cpuShares,omitempty"`
	CPUSet          string `json:"cpuset,omitempty"`
}

// Options is what the engine is told beyond what it is of most tasks.
func (t *TaskSpec) Options() ContainerOptions {
	if t.Container == nil {
		return ContainerOptions{}
	}
	return *t.Container
}

// HostEntry is a name that a task's own hosts file has.
type HostEntry struct {
	Name string     `json:"name"`
	Addr netip.Addr `json:"addr"`
}

// Device is one of the node's that a task may use.
type Device struct {
	Source      string `json:"source"`
	Target      string `json:"target"`
	Permissions string `json:"permissions"` // of r, w and m
}

// DeviceRequest asks a device driver of the engine for devices, such as GPUs.
type DeviceRequest struct {
	Driver       string            `json:"driver,omitempty"`
	Count        int               `json:"count,omitempty"` // -1: all
	IDs          []string          `json:"ids,omitempty"`
	Capabilities []string          `json:"capabilities,omitempty"`
	Options      map[string]string `json:"options,omitempty"`
}

// Ulimit bounds one resource of each of a task's processes; -1: no limit.
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}
