package blueprint

import (
	"context"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// ResolveOptions say what Params are made of, besides what stands in the ActionSet.
type ResolveOptions struct {
	// Confined refuses Profiles, Secrets and ConfigMaps of other namespaces than the ActionSet's and its object's.
	Confined bool
	// Profile takes the place of the ActionSet's. It comes by file.
	Profile *ProfileDocument
	// Vault says how kando reaches the vault of a Location, for Profiles that stand for one. Where nil, those are refused.
	Vault func(ctx context.Context, namespace, location string) (*VaultDocument, error)
	Now   func() time.Time
}

// Resolve reads what templates see of an action: its object, with the pods of it that are ready, its Secrets, ConfigMaps and Profile.
// An error is fault.ErrInvalid or ErrNotFound where the ActionSet is at fault; see kube.ClassOf for the others.
func Resolve(ctx context.Context, c *kube.Cluster, set *ActionSet, action ActionSpec, b *Blueprint, o ResolveOptions) (*Params, error) {
	return nil, fault.ErrUnsupported
}

// ResolveObjects reads the Secrets and ConfigMaps that a phase refers to. References without a namespace are to the ActionSet's.
func ResolveObjects(ctx context.Context, c *kube.Cluster, set *ActionSet, refs map[string]ObjectReference, o ResolveOptions) (*PhaseParams, error) {
	return nil, fault.ErrUnsupported
}
