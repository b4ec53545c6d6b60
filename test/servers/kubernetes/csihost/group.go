package main

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// GroupControllerGetCapabilities is CSI's.
func (d *driver) GroupControllerGetCapabilities(
	context.Context, *csi.GroupControllerGetCapabilitiesRequest,
) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	if !d.snapshots {
		return nil, status.Error(codes.Unimplemented, "this driver has no snapshots")
	}
	ability := csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
	return &csi.GroupControllerGetCapabilitiesResponse{Capabilities: []*csi.GroupControllerServiceCapability{{
		Type: &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{Type: ability}},
	}}}, nil
}

// CreateVolumeGroupSnapshot is CSI's.
func (d *driver) CreateVolumeGroupSnapshot(
	ctx context.Context, q *csi.CreateVolumeGroupSnapshotRequest,
) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	if len(q.SourceVolumeIds) == 0 {
		return nil, status.Error(codes.InvalidArgument, "volumes are needed")
	}
	made, err := d.cut(ctx, "CreateVolumeGroupSnapshot", q.Name, "g-"+q.Name, q.SourceVolumeIds)
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: d.toldGroup(made)}, nil
}

// toldGroup is a group snapshot as CSI tells of it. It is ready at once, whatever its members are when asked for by themselves: the
// snapshot-controller, v8.3.0, never gets over one that is not.
func (d *driver) toldGroup(members []*snapshot) *csi.VolumeGroupSnapshot {
	answer := &csi.VolumeGroupSnapshot{
		GroupSnapshotId: members[0].Group, CreationTime: timestamppb.New(members[0].Created), ReadyToUse: true,
	}
	for _, m := range members {
		s := d.told(m)
		s.ReadyToUse = true
		answer.Snapshots = append(answer.Snapshots, s)
	}
	return answer
}

// DeleteVolumeGroupSnapshot is CSI's.
func (d *driver) DeleteVolumeGroupSnapshot(
	_ context.Context, q *csi.DeleteVolumeGroupSnapshotRequest,
) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	d.store.Lock()
	defer d.store.Unlock()
	if err := d.store.deleteSnapshots(func(s *snapshot) bool { return s.Group != "" && s.Group == q.GroupSnapshotId }); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}

// GetVolumeGroupSnapshot is CSI's.
func (d *driver) GetVolumeGroupSnapshot(
	_ context.Context, q *csi.GetVolumeGroupSnapshotRequest,
) (*csi.GetVolumeGroupSnapshotResponse, error) {
	d.store.Lock()
	defer d.store.Unlock()
	var members []*snapshot
	for _, s := range d.store.Snapshots {
		if s.Group != "" && s.Group == q.GroupSnapshotId {
			members = append(members, s)
		}
	}
	if len(members) == 0 {
		return nil, status.Error(codes.NotFound, "no group snapshot "+q.GroupSnapshotId)
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: d.toldGroup(members)}, nil
}
