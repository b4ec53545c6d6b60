package vault

import (
	"context"
	"path/filepath"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Volume is a volume of an application, mounted or attached here, and the part that it becomes.
type Volume struct {
	Part  string
	Kind  string // point.KindVolume: Path is the directory it is mounted at; point.KindBlock: a block device or an image of one
	Path  string
	Mark  string   // of the part; where the last copy has the same, the volume was captured already and is not read again
	Notes []string // of the part
}

// Volumes is a source: volumes of one subject.
type Volumes struct {
	subject point.Subject
	volumes []Volume
}

// NewVolumes makes a source of volumes.
func NewVolumes(s point.Subject, volumes []Volume) *Volumes { return &Volumes{s, volumes} }

// Subject is what the volumes belong to.
func (s *Volumes) Subject() point.Subject { return s.subject }

// Capture writes each volume as a part.
func (s *Volumes) Capture(ctx context.Context, to point.Sink) error {
	for _, v := range s.volumes {
		w, err := to.Part(ctx, v.Part, v.Kind)
		if err != nil {
			return err
		}
		if err := v.capture(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

func (v Volume) capture(ctx context.Context, w point.PartWriter) error {
	if last := w.Prior(); last != nil && v.Mark != "" && last.Part.Mark == v.Mark && last.Part.State == point.Stored {
		if err := w.Keep(ctx, "."); err != nil {
			return err
		}
		return w.Store(ctx, last.Part)
	}
	captured := v.captureDirectory
	if v.Kind == point.KindBlock {
		captured = v.captureBlock
	}
	p, source, err := captured(ctx, w)
	if err != nil {
		return err
	}
	if source != nil {
		return w.Fail(ctx, source)
	}
	p.Mark, p.Notes = v.Mark, append(p.Notes, v.Notes...)
	return w.Store(ctx, p)
}

// captureDirectory tells what is wrong with the volume from an error of the vault. What fsck found is none of the application's files.
func (v Volume) captureDirectory(ctx context.Context, w point.PartWriter) (p point.Part, source, vault error) {
	root, err := openTree(v.Path)
	if err != nil {
		return p, err, nil
	}
	defer root.Close() //nolint:errcheck // opened for reading
	p, err = captureTree(ctx, w, root, []string{filepath.Join(v.Path, lostFound)})
	return p, nil, err
}

func (v Volume) captureBlock(ctx context.Context, w point.PartWriter) (p point.Part, source, vault error) {
	d, err := openDevice(v.Path)
	if err != nil {
		return p, err, nil
	}
	defer d.Close() //nolint:errcheck // opened for reading
	p, err = d.capture(ctx, w)
	if source := d.failure(); source != nil {
		return p, fault.Wrap("read "+quote(v.Path), nil, source, ""), nil
	}
	return p, nil, err
}
