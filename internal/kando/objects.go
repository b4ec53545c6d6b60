package kando

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// Store keeps objects at the place of a profile. Paths are relative to the profile's prefix.
type Store interface {
	// Write stores what r yields as one object. It is there when all of it has come, and not before.
	Write(ctx context.Context, path string, r io.Reader) error
	// Read writes an object to w; fault.ErrNotFound where there is none.
	Read(ctx context.Context, path string, w io.Writer) error
	// Delete deletes the object of that path and all below it. Where nothing is left to delete, that is success.
	Delete(ctx context.Context, path string) error
}

// Open makes the store of a profile that leads to an object store; fault.ErrUnsupported for another. It asks no server. Env looks up
// environment variables.
func Open(d Document, env func(string) string) (Store, error) {
	open := map[string]func(Document, func(string) string) (bucket, error){TypeS3: openS3, TypeGCS: openGCS, TypeAzure: openAzure}[d.Location.Type]
	op := "open profile"
	switch {
	case d.Location.Type == "":
		return nil, fault.New(op, fault.ErrInvalid, "its location has no type", "one of s3Compliant, gcs, azure, kopia")
	case open == nil:
		return nil, fault.New(op, fault.ErrUnsupported, fmt.Sprintf("no objects are kept at locations of the type %q", d.Location.Type), "")
	case d.Location.Bucket == "":
		return nil, fault.New(op, fault.ErrInvalid, "its location has no bucket", "")
	}
	b, err := open(d, env)
	if err != nil {
		return nil, d.redact(err)
	}
	return &store{b, d.Location.Prefix}, nil
}

// bucket is an object store, by full names of objects.
type bucket interface {
	fmt.Stringer
	begin(name string) upload
	read(ctx context.Context, name string, w io.Writer) error
	// list gives names that begin with prefix, in any order.
	list(ctx context.Context, prefix string, each func(name string) error) error
	remove(ctx context.Context, name string) error
}

type store struct {
	bucket
	prefix string
}

// name is the full name of an object. One that leads out of the profile's prefix is refused.
func (s *store) name(below string) (string, error) {
	name := strings.TrimPrefix(path.Join("/", s.prefix, below), "/")
	root := strings.TrimPrefix(path.Join("/", s.prefix), "/")
	switch {
	case strings.ContainsRune(below, 0), !inside(root, name):
		return "", fault.New("path "+fmt.Sprintf("%q", below), fault.ErrInvalid, "it leads out of the profile's prefix", "")
	case name == root:
		return "", fault.New("--path", fault.ErrInvalid, "it is missing", "name an object below the profile's prefix")
	}
	return name, nil
}

func inside(root, name string) bool {
	return root == "" || name == root || strings.HasPrefix(name, root+"/")
}

func (s *store) Write(ctx context.Context, path string, r io.Reader) error {
	name, err := s.name(path)
	if err != nil {
		return err
	}
	return fault.Wrap("push to "+s.String()+" "+name, nil, send(ctx, s.begin(name), r), "")
}

func (s *store) Read(ctx context.Context, path string, w io.Writer) error {
	name, err := s.name(path)
	if err != nil {
		return err
	}
	return fault.Wrap("pull from "+s.String()+" "+name, nil, s.read(ctx, name, w), "")
}

func (s *store) Delete(ctx context.Context, path string) error {
	name, err := s.name(path)
	if err != nil {
		return err
	}
	op := "delete in " + s.String() + " " + name
	err = again(ctx, noLimit, func(ctx context.Context) error { // a listing that breaks begins anew: what was deleted is not in it
		return s.list(ctx, name, func(found string) error {
			if !inside(name, found) { // backup-1 is not backup-10
				return nil
			}
			if err := s.remove(ctx, found); !errors.Is(err, fault.ErrNotFound) {
				return err
			}
			return nil
		})
	})
	return fault.Wrap(op, nil, err, "")
}

// objects is the place of a profile that leads to an object store.
type objects struct{ Store }

func (o objects) push(ctx context.Context, s *source, path string) (*snapshot, error) {
	if s.dir {
		return nil, fault.New("push "+s.name, fault.ErrUnsupported, "an object store takes no directory",
			"pipe a tar archive, or take a profile of the type kopia")
	}
	return nil, o.Write(ctx, path, s.read)
}

func (o objects) pull(ctx context.Context, t *target, path, _ string) error {
	return t.write(func(w io.Writer) error { return o.Read(ctx, path, w) })
}

func (o objects) delete(ctx context.Context, path, _ string) error { return o.Delete(ctx, path) }
