package api

import (
	"context"
	"errors"
	"io"
)

// ImagePin says what an image's name stood for when a service was deployed, so
// that all of its tasks run the same. The zero pin leaves it to each node.
type ImagePin struct {
	// ID is the digest of the image's configuration, "sha256:...", by which
	// engines know it; empty if no node had it.
	ID string `json:"id,omitempty"`
	// Digest is that of its manifest in the registry it came from, if it did.
	Digest string `json:"digest,omitempty"`
	// Platform is what an image that no registry has is made for. One of a registry
	// may be there for several.
	Platform Platform `json:"platform,omitzero"`
}

// ErrImageNotHere is wrapped when a node lacks an image that no registry is known
// to have.
var ErrImageNotHere = errors.New("the image is not on this node")

// ImageStatus says whether a node can run an image.
type ImageStatus struct {
	Present  bool     // the engine has it
	ID       string   // of the image in the engine, when present
	Created  string   // RFC 3339, when present
	Platform Platform // when present
	// Pullable: its registry has it. Asked only when it is not present.
	Pullable bool
	Digest   string // of the manifest in the registry, when known
	Reason   string // in a user's words, why it is neither present nor pullable
}

// ImageStatusRequest asks a node what it knows of an image.
type ImageStatusRequest struct {
	Image string `json:"image"` // name, or ID
	// Ask says whether to ask the image's registry: if the node does not have
	// it, always, or never.
	Ask RegistryAsk `json:"ask,omitempty"`
	// Auth are the credentials for the registry.
	Auth *RegistryAuth `json:"auth,omitempty"`
	// Grant names a node that may read the image from this one for a while.
	Grant NodeID `json:"grant,omitempty"`
}

// RegistryAsk is when a registry is asked for an image.
type RegistryAsk string

const (
	AskIfMissing RegistryAsk = ""
	AskAlways    RegistryAsk = "always"
	AskNever     RegistryAsk = "never"
)

// RegistryAuth are credentials for a registry.
type RegistryAuth struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// Token stands for both where a registry gave one.
	Token string `json:"token,omitempty"`
}

// String keeps credentials out of whatever is printed.
func (*RegistryAuth) String() string { return "(credentials)" }

// ImageManifest is what an image is made of.
type ImageManifest struct {
	// Config is the image's configuration, byte for byte: its digest is the ID.
	Config []byte `json:"config"`
	// Layers are the sizes in bytes of the uncompressed layers, lowest first;
	// their digests stand in Config.
	Layers []int64 `json:"layers"`
}

// ImageContent reads an image that is elsewhere.
type ImageContent interface {
	Manifest(ctx context.Context, id string) (*ImageManifest, error)
	// Layer returns the image's layer, counted from 0, from a byte on.
	Layer(ctx context.Context, id string, layer int, offset int64) (io.ReadCloser, error)
}

// ImageSourcesRequest asks a manager who has the image of a task of the caller's.
type ImageSourcesRequest struct {
	Node NodeID `json:"node"`
	Task TaskID `json:"task"`
}

// ImageSources are the nodes that have an image and let the caller read it.
type ImageSources struct {
	Nodes []Node `json:"nodes"`
}

// ImageHolders are the nodes that have an image, by hostname.
type ImageHolders struct {
	Nodes []string `json:"nodes"`
}

// ImageRequest names an image by its ID.
type ImageRequest struct {
	ID string `json:"id"`
}

// ImageLayerRequest asks for a layer of an image, from a byte on.
type ImageLayerRequest struct {
	ID     string `json:"id"`
	Layer  int    `json:"layer"`
	Offset int64  `json:"offset"`
}

// ImageOffer announces an image that is about to be uploaded to a node.
type ImageOffer struct {
	Manifest ImageManifest `json:"manifest"`
}

// ImageWants are the layers that a node lacks of an image offered to it, and how
// much of each it has already.
type ImageWants struct {
	ID     string      `json:"id"`
	Layers []LayerWant `json:"layers"`
}

// LayerWant is a layer that is lacking, from byte Have on.
type LayerWant struct {
	Layer  int    `json:"layer"`
	DiffID string `json:"diffID"` // digest of the uncompressed layer
	Have   int64  `json:"have"`
}

// LayerUpload says which part of a layer follows.
type LayerUpload struct {
	DiffID string `json:"diffID"`
	Offset int64  `json:"offset"`
}

// ImageCommit ends an upload: the node's engine takes the image in, by this name.
type ImageCommit struct {
	Manifest ImageManifest `json:"manifest"`
	Name     string        `json:"name"`
}

// ImageBuild says how an image is made from source.
type ImageBuild struct {
	// Name is what the image is called, Tags are further names.
	Name string
	Tags []string
	// Context is a directory (absolute), or what an engine fetches itself: the
	// URL of a repository or of an archive.
	Context string
	// Dockerfile is a path, relative to the context if it is not absolute, or
	// Inline is its text.
	Dockerfile string
	Inline     string

	Args       map[string]*string // nil: the engine's own, such as HTTP_PROXY
	Labels     map[string]string
	Target     string
	CacheFrom  []string
	NoCache    bool
	Pull       bool // the images that it begins from, also where they are here
	Network    string
	ExtraHosts []string // HOST:ADDRESS
	ShmBytes   int64
	Platform   string // OS/ARCH, empty: the engine's
}
