package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NodeGetInfo is CSI's.
func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node}, nil
}

// NodeGetCapabilities is CSI's.
func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	return &csi.NodeGetCapabilitiesResponse{}, nil
}

// NodePublishVolume is CSI's.
func (d *driver) NodePublishVolume(ctx context.Context, q *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if err := d.faults.befall(ctx, "NodePublishVolume", d.claimOf(q.VolumeId)); err != nil {
		return nil, err
	}
	source := d.store.live(q.VolumeId)
	if _, err := os.Stat(source); err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if mounted(q.TargetPath) {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	var err error
	if q.GetVolumeCapability().GetBlock() != nil {
		err = d.publishBlock(filepath.Join(source, imageName), q.TargetPath, q.Readonly)
	} else {
		err = publishFiles(source, q.TargetPath, q.Readonly)
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func publishFiles(source, target string, readonly bool) error {
	if err := os.MkdirAll(target, 0o750); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil || !readonly {
		return err
	}
	return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

// publishBlock shows an image as a device at target.
func (d *driver) publishBlock(image, target string, readonly bool) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(target, nil, 0o600); err != nil { // a place to mount over
		return err
	}
	device, err := d.loops.attach(image, target, readonly)
	if err != nil {
		return err
	}
	if err := unix.Mount(device, target, "", unix.MS_BIND, ""); err != nil {
		d.loops.detach(target)
		return err
	}
	return nil
}

// NodeUnpublishVolume is CSI's.
func (d *driver) NodeUnpublishVolume(_ context.Context, q *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if mounted(q.TargetPath) {
		if err := unix.Unmount(q.TargetPath, 0); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	d.loops.detach(q.TargetPath)
	if err := os.Remove(q.TargetPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func mounted(path string) bool {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	const place = 4
	for line := range strings.Lines(string(content)) {
		if words := strings.Fields(line); len(words) > place && words[place] == path {
			return true
		}
	}
	return false
}
