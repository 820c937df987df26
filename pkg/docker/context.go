package docker

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/orch-dev/orch/pkg/api"
)

// buildContext is the directory that an image is built from, without what its
// .dockerignore leaves out.
type buildContext struct {
	dir        string
	ignore     *patternmatcher.PatternMatcher
	dockerfile string // in the archive
	extra      []file // in the archive, but not in dir
}

// outsideDockerfile is what a Dockerfile is called in the archive that is not in
// the directory; no file of a user's is called so.
const outsideDockerfile = ".orch-dockerfile"

func openContext(b *api.ImageBuild) (*buildContext, error) {
	c := &buildContext{dir: b.Context, dockerfile: "Dockerfile"}
	if info, err := os.Stat(c.dir); err != nil {
		return nil, fmt.Errorf("its context: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("its context %s is not a directory", c.dir)
	}
	if err := c.findDockerfile(b); err != nil {
		return nil, err
	}
	patterns, err := c.ignorePatterns()
	if err != nil {
		return nil, err
	}
	if c.ignore, err = patternmatcher.New(patterns); err != nil {
		return nil, fmt.Errorf(".dockerignore: %w", err)
	}
	return c, nil
}

func (c *buildContext) findDockerfile(b *api.ImageBuild) error {
	if b.Inline != "" {
		c.dockerfile = outsideDockerfile
		c.extra = append(c.extra, file{outsideDockerfile, 0o644, []byte(b.Inline)})
		return nil
	}
	name := b.Dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(c.dir, name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("its Dockerfile: %w", err)
	}
	inside, err := filepath.Rel(c.dir, name)
	if err != nil || strings.HasPrefix(inside, "..") {
		c.dockerfile = outsideDockerfile
		c.extra = append(c.extra, file{outsideDockerfile, 0o644, text})
		return nil
	}
	c.dockerfile = filepath.ToSlash(inside)
	return nil
}

// ignorePatterns reads DOCKERFILE.dockerignore, or else .dockerignore. The
// Dockerfile itself is always sent.
func (c *buildContext) ignorePatterns() ([]string, error) {
	for _, name := range []string{c.dockerfile + ".dockerignore", ".dockerignore"} {
		f, err := os.Open(filepath.Join(c.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		patterns, err := ignorefile.ReadAll(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return append(patterns, "!"+c.dockerfile), nil
	}
	return nil, nil
}

// pack writes the context as an archive. Owners are left out, so that a layer is
// the same whoever builds it.
func (c *buildContext) pack(w io.Writer) error {
	archive := tar.NewWriter(w)
	for _, f := range c.extra {
		if err := archive.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data))}); err != nil {
			return err
		}
		if _, err := archive.Write(f.data); err != nil {
			return err
		}
	}
	err := filepath.WalkDir(c.dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(c.dir, name)
		if err != nil || inside == "." {
			return err
		}
		inside = filepath.ToSlash(inside)
		ignored, err := c.ignore.MatchesOrParentMatches(inside)
		switch {
		case err != nil:
			return err
		case ignored && entry.IsDir() && !c.ignore.Exclusions():
			return filepath.SkipDir
		case ignored:
			return nil
		}
		return add(archive, name, inside, entry)
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

// add writes one file, directory or link.
func add(archive *tar.Writer, name, inside string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(name); err != nil {
			return err
		}
	case !info.IsDir() && !info.Mode().IsRegular():
		return nil // a socket or a device is no source
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = inside
	if info.IsDir() {
		h.Name = path.Clean(inside) + "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if err := archive.WriteHeader(h); err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(archive, f)
	return err
}
