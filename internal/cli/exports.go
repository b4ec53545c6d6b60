package cli

import (
	"context"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/export"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/git"
	"github.com/backstay/backstay/internal/protect"
)

// export makes a destination of plain copies.
func (b *builder) export(ctx context.Context, e v1alpha1.Export, policyName string) (protect.Destination, error) {
	kind, where, err := b.exportPlace(ctx, e)
	if err != nil {
		return protect.Destination{}, err
	}
	exporter, err := export.New(export.Options{
		Place: where, Clock: b.app.Clock, UpdateWorkTree: git.UpdateWorkTree, Lost: git.Lost,
		Layout: export.Layout{
			Structured: e.Structured, Form: e.Form, Zip: e.Zip, Keep: e.Keep, Dated: e.Dated, LFS: e.LFS,
		},
	})
	if err != nil {
		return protect.Destination{}, err
	}
	return protect.Destination{Type: kind, Place: where.String(), Deliver: protect.Copies(exporter, policyName)}, nil
}

// exportPlace opens the place of copies.
func (b *builder) exportPlace(ctx context.Context, e v1alpha1.Export) (string, export.Place, error) {
	switch {
	case e.Local != nil:
		p, err := export.NewLocal(b.home(e.Local.Path))
		return "local", p, err
	case e.S3 != nil:
		p, err := b.s3(ctx, *e.S3)
		return "s3", p, err
	case e.Azure != nil:
		p, err := b.azure(ctx, *e.Azure)
		return "azureblob", p, err
	case e.WebDAV != nil:
		password, err := b.secret(ctx, e.WebDAV.Password)
		if err != nil {
			return "", nil, err
		}
		p, err := export.NewWebDAV(export.WebDAVOptions{
			URL: e.WebDAV.URL, Username: e.WebDAV.Username, Password: password, Path: e.WebDAV.Path,
		})
		return "webdav", p, err
	}
	return "", nil, fault.New("", fault.ErrInvalid, "it names no place", "")
}

func (b *builder) s3(ctx context.Context, o v1alpha1.S3) (export.Place, error) {
	secrets, err := b.all(ctx, o.AccessKey, o.SecretKey, o.SessionToken)
	if err != nil {
		return nil, err
	}
	tag := ""
	if o.SourceTag != nil {
		tag = *o.SourceTag
	}
	return export.NewS3(export.S3Options{
		Bucket: o.Bucket, Endpoint: o.Endpoint, Region: o.Region, AccessKey: secrets[0], SecretKey: secrets[1], SessionToken: secrets[2],
		Insecure: o.Insecure, StorageClass: o.StorageClass, SourceTag: tag,
	})
}

func (b *builder) azure(ctx context.Context, o v1alpha1.Azure) (export.Place, error) {
	secrets, err := b.all(ctx, o.ClientSecret, o.SAS)
	if err != nil {
		return nil, err
	}
	return export.NewAzure(export.AzureOptions{
		URL: o.URL, Container: o.Container, TenantID: o.TenantID, ClientID: o.ClientID, ClientSecret: secrets[0], SAS: secrets[1], UseCLI: o.UseCLI,
	})
}
