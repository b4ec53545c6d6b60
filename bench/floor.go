package main

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"
)

const (
	floorGets  = 16      // at once
	floorPiece = 4 << 20 // bytes of one GET
)

// floors are what no restore from an S3 server can be faster than: to get the packs of the vault and throw them away, and to write the
// volume's files.
func (b *bench) floors(ctx context.Context, v *volume, s *s3) error {
	got, err := s.get(ctx, v.name+"/p")
	if err != nil {
		return err
	}
	out := b.path("volume-out")
	if err := emptyDir(out); err != nil {
		return err
	}
	written, err := measure(ctx, nil, "sh", "-c", `cp -r "$1" "$2" && sync -f "$2"`, "sh", v.dir, out)
	if err != nil {
		return err
	}
	b.row("getting the packs, S3 at 30 ms, 16 plain GETs at a time", got.Round(time.Millisecond).String(), "", "", 0, "")
	b.row("writing the files, `cp -r` and `sync`", written.wall.Round(time.Millisecond).String(), "", "", 0, "")
	return nil
}

// get reads all objects whose names begin so, several pieces at a time.
func (s *s3) get(ctx context.Context, prefix string) (time.Duration, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: floorGets}
	defer transport.CloseIdleConnections()
	client, err := minio.New(s.proxy.address(), &minio.Options{
		Creds: credentials.NewStaticV4(s3User, s3User, ""), Region: "us-east-1", Transport: transport,
	})
	if err != nil {
		return 0, err
	}
	buffers := sync.Pool{New: func() any { return new([1 << 20]byte) }}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(floorGets)
	start := time.Now()
	for o := range client.ListObjects(inner, "backstay", minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return 0, o.Err
		}
		for at := int64(0); at < o.Size; at += floorPiece {
			group.Go(func() error {
				var options minio.GetObjectOptions
				if err := options.SetRange(at, min(at+floorPiece, o.Size)-1); err != nil {
					return err
				}
				object, err := client.GetObject(inner, "backstay", o.Key, options)
				if err != nil {
					return err
				}
				defer object.Close()
				buffer := buffers.Get().(*[1 << 20]byte)
				defer buffers.Put(buffer)
				_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{object}, buffer[:])
				return err
			})
		}
	}
	err = group.Wait()
	return time.Since(start), err
}
