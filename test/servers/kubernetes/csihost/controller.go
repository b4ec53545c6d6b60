package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// ControllerGetCapabilities is CSI's.
func (d *driver) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	abilities := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
	}
	if d.snapshots {
		abilities = append(abilities, csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT, csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS)
	}
	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, a := range abilities {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: a}},
		})
	}
	return answer, nil
}

// CreateVolume is CSI's. The provisioner tells the claim's name in parameters.
func (d *driver) CreateVolume(ctx context.Context, q *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if q.Name == "" || len(q.VolumeCapabilities) == 0 {
		return nil, status.Error(codes.InvalidArgument, "a name and capabilities are needed")
	}
	v := &volume{
		ID: "v-" + q.Name, Bytes: roundUp(q.GetCapacityRange().GetRequiredBytes()),
		Claim: q.Parameters["csi.storage.k8s.io/pvc/namespace"] + "/" + q.Parameters["csi.storage.k8s.io/pvc/name"],
		Block: q.VolumeCapabilities[0].GetBlock() != nil,
	}
	if err := d.faults.befall(ctx, "CreateVolume", v.Claim); err != nil {
		return nil, err
	}
	d.store.Lock()
	defer d.store.Unlock()
	if existing := d.store.Volumes[v.ID]; existing != nil {
		v = existing
	} else {
		from, err := d.origin(v, q.VolumeContentSource)
		if err != nil {
			return nil, err
		}
		if err := d.store.create(v, from); err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
	}
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Bytes, ContentSource: q.VolumeContentSource}}, nil
}

// roundUp gives whole blocks, as disks have them.
func roundUp(bytes int64) int64 {
	const block = 1 << 20
	return max(1, (bytes+block-1)/block) * block
}

// origin is the directory that a volume is to be a copy of, empty for a new one. It may not shrink, nor change its mode.
func (d *driver) origin(v *volume, source *csi.VolumeContentSource) (string, error) {
	var dir string
	var bytes int64
	var block bool
	if id := source.GetSnapshot().GetSnapshotId(); id != "" {
		n := d.store.Snapshots[id]
		if n == nil {
			return "", status.Error(codes.NotFound, "no snapshot "+id)
		}
		dir, bytes, block = d.store.cut(n.Cut, n.Volume), n.Bytes, n.Block
	} else if id := source.GetVolume().GetVolumeId(); id != "" {
		o := d.store.Volumes[id]
		if o == nil {
			return "", status.Error(codes.NotFound, "no volume "+id)
		}
		dir, bytes, block = d.store.live(id), o.Bytes, o.Block
	} else {
		return "", nil
	}
	if block != v.Block {
		return "", status.Error(codes.InvalidArgument, "block volumes come of block volumes, and file systems of file systems")
	}
	v.Bytes = max(v.Bytes, bytes)
	return dir, nil
}

// DeleteVolume is CSI's.
func (d *driver) DeleteVolume(_ context.Context, q *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	d.store.Lock()
	defer d.store.Unlock()
	if err := d.store.delete(q.VolumeId); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// ValidateVolumeCapabilities is CSI's.
func (d *driver) ValidateVolumeCapabilities(
	_ context.Context, q *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: q.VolumeCapabilities},
	}, nil
}

// CreateSnapshot is CSI's.
func (d *driver) CreateSnapshot(ctx context.Context, q *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	made, err := d.cut(ctx, "CreateSnapshot", q.Name, "", []string{q.SourceVolumeId})
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: d.told(made[0])}, nil
}

// cut makes snapshots of volumes at one instant, sorted by the volume.
func (d *driver) cut(ctx context.Context, operation, name, group string, volumes []string) ([]*snapshot, error) {
	ids := map[string]string{}
	for _, volume := range volumes {
		if err := d.faults.befall(ctx, operation, d.claimOf(volume)); err != nil {
			return nil, err
		}
		ids[volume] = "s-" + name
		if group != "" {
			ids[volume] = "s-" + name + "-" + volume
		}
	}
	d.store.Lock()
	defer d.store.Unlock()
	made, err := d.store.snapshot(name, group, ids)
	if _, known := status.FromError(err); err != nil && !known {
		err = status.Error(codes.Internal, err.Error())
	}
	slices.SortFunc(made, func(a, b *snapshot) int { return cmp.Compare(a.Volume, b.Volume) })
	return made, err
}

func (d *driver) claimOf(volume string) string {
	d.store.Lock()
	defer d.store.Unlock()
	if v := d.store.Volumes[volume]; v != nil {
		return v.Claim
	}
	return ""
}

// told is a snapshot as CSI tells of it.
func (d *driver) told(s *snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: s.ID, SourceVolumeId: s.Volume, SizeBytes: s.Bytes, CreationTime: timestamppb.New(s.Created),
		ReadyToUse: time.Since(s.Created) >= d.faults.unready(s.Claim), GroupSnapshotId: s.Group,
	}
}

// DeleteSnapshot is CSI's.
func (d *driver) DeleteSnapshot(_ context.Context, q *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	d.store.Lock()
	defer d.store.Unlock()
	if err := d.store.deleteSnapshots(func(s *snapshot) bool { return s.ID == q.SnapshotId }); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// ListSnapshots is CSI's; nobody asks for pages of so few.
func (d *driver) ListSnapshots(_ context.Context, q *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	d.store.Lock()
	defer d.store.Unlock()
	answer := &csi.ListSnapshotsResponse{}
	for _, s := range d.store.Snapshots {
		if (q.SnapshotId == "" || q.SnapshotId == s.ID) && (q.SourceVolumeId == "" || q.SourceVolumeId == s.Volume) {
			answer.Entries = append(answer.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: d.told(s)})
		}
	}
	return answer, nil
}
