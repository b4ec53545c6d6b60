package kube

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
)

// Moment is a state of a cluster.
type Moment struct {
	// ResourceVersion names the state for all kinds in the API server's own store.
	ResourceVersion string
	// At is when that version was read: the state is not newer.
	At time.Time
	// Mark is what parts captured at this moment are marked with, unique to the capture.
	Mark string
}

// Version reads the present version of the cluster's state, and the time right after. It needs no right but the process's own, also where
// c acts for a service account: a version tells nothing.
func (c *Cluster) Version(ctx context.Context) (resourceVersion string, at time.Time, err error) {
	// A list is as new as the store when it began, and carries the version of all of it, whatever kind is listed.
	list := metav1.PartialObjectMetadataList{TypeMeta: namespaceType()}
	if err := c.own().Client.List(ctx, &list, client.Limit(1)); err != nil {
		return "", time.Time{}, fault.Wrap("read the version of the cluster's state", ClassOf(err), err, "")
	}
	return list.ResourceVersion, c.now(), nil
}
