//go:build tools

// Package kubernetes pins the programs of a cluster that are built as they are.
package kubernetes

import (
	_ "github.com/kubernetes-csi/external-provisioner/v5/cmd/csi-provisioner" // by provisioner.mod
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter"
	_ "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller"
)
