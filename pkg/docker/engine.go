package docker

import (
	"errors"
	"path/filepath"
	"sync"

	"github.com/moby/moby/client"

	"github.com/orch-dev/orch/pkg/api"
)

// Config says which engine to use and which of its containers are ours.
type Config struct {
	// Host is the engine's address (unix:///var/run/docker.sock); empty: the
	// environment's DOCKER_HOST, or else the default socket. The engine must
	// run on this machine, in this process's PID namespace.
	Host string
	// ClusterID and Node are the scope: only containers labelled with both
	// exist for this Engine.
	ClusterID string
	Node      api.NodeID
	// Lab and LabNode, when set, mark containers and volumes as those of a
	// node of a lab, and keep the volumes of its nodes apart.
	Lab, LabNode string
	// RunDir is where the files mounted into tasks are kept, below
	// tasks/TASK. The engine must see it under the same path.
	RunDir string
	// CgroupParent of all containers; empty: the engine's default.
	CgroupParent string
	// ImageDir is where parts of images are kept while they are copied to or
	// from this node. It may be empty where no image is copied.
	ImageDir string
}

// Engine is a node's view of its Docker Engine. Its methods can be called
// concurrently; for one task, the caller orders them.
type Engine struct {
	*Images
	cfg Config
	cli *client.Client

	sandboxImage string
	// loadImage keeps parallel first tasks from loading the sandbox image
	// more than once.
	loadImage sync.Mutex
}

// New returns an Engine. It does not talk to the engine.
func New(cfg Config) (*Engine, error) {
	if cfg.ClusterID == "" || cfg.Node == "" {
		return nil, errors.New("docker engine: cluster and node must be set, they scope the containers")
	}
	if !filepath.IsAbs(cfg.RunDir) {
		return nil, errors.New("docker engine: run directory must be an absolute path: " + cfg.RunDir)
	}
	cli, err := dial(cfg.Host)
	if err != nil {
		return nil, err
	}
	return &Engine{Images: newImages(cli, cfg.ImageDir), cfg: cfg, cli: cli, sandboxImage: sandboxImage}, nil
}

func dial(host string) (*client.Client, error) {
	opt := client.FromEnv
	if host != "" {
		opt = client.WithHost(host)
	}
	cli, err := client.New(opt)
	if err != nil {
		return nil, wrap("docker client", err)
	}
	return cli, nil
}

// Close gives up idle connections to the engine. Containers are not affected.
func (e *Engine) Close() error { return e.Images.Close() }
