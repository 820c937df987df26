package docker

import "github.com/moby/moby/client"

// Images are those of an engine: built, copied to and from other engines. They
// belong to the machine, not to a node of a cluster.
type Images struct {
	cli *client.Client
	dir string // where parts of images are kept while they are copied

	exports  exports
	incoming keyedLock // layers that are being received, by digest
}

// OpenImages returns the images of the engine at host; empty: DOCKER_HOST, or
// else the default socket. It does not talk to the engine.
func OpenImages(host, dir string) (*Images, error) {
	cli, err := dial(host)
	if err != nil {
		return nil, err
	}
	return newImages(cli, dir), nil
}

func newImages(cli *client.Client, dir string) *Images {
	i := &Images{cli: cli, dir: dir}
	i.exports.unpack = i.unpackImage
	return i
}

// Close gives up idle connections to the engine.
func (i *Images) Close() error { return i.cli.Close() }
