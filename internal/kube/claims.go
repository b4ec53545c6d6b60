package kube

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
)

// Claims are the claims of an application, sorted by namespace and name: all in its namespaces, or those chosen and those that what is
// chosen uses. Claims that end with their pod are none.
func (c *Cluster) Claims(ctx context.Context, a Application) ([]corev1.PersistentVolumeClaim, error) {
	belongs := func(*corev1.PersistentVolumeClaim) bool { return true }
	if !a.whole() {
		var err error
		if belongs, err = c.usedClaims(ctx, a); err != nil {
			return nil, fault.Wrap("find the claims of "+a.Name, nil, err, "")
		}
	}
	var claims []corev1.PersistentVolumeClaim
	for _, ns := range a.Namespaces {
		var list corev1.PersistentVolumeClaimList
		if err := c.Client.List(ctx, &list, client.InNamespace(ns)); err != nil {
			return nil, fault.Wrap("list claims in "+ns, ClassOf(err), err, "")
		}
		for i := range list.Items {
			if claim := &list.Items[i]; belongs(claim) && !ephemeral(claim) {
				claims = append(claims, list.Items[i])
			}
		}
	}
	slices.SortFunc(claims, func(x, y corev1.PersistentVolumeClaim) int {
		return strings.Compare(x.Namespace+"/"+x.Name, y.Namespace+"/"+y.Name)
	})
	return claims, nil
}

// ephemeral reports whether a claim lives and ends with a pod, by which it was made.
func ephemeral(claim metav1.Object) bool {
	owner := metav1.GetControllerOf(claim)
	return owner != nil && owner.APIVersion == "v1" && owner.Kind == "Pod"
}

// usedClaims finds out which claims belong to an application that is a choice of objects.
func (c *Cluster) usedClaims(ctx context.Context, a Application) (func(*corev1.PersistentVolumeClaim) bool, error) {
	kinds, _, err := c.kinds(ctx)
	if err != nil {
		return nil, err
	}
	chosen, err := c.choose(ctx, a, kinds, "")
	if err != nil {
		return nil, err
	}
	var n needs
	for _, ns := range a.Namespaces {
		for _, k := range kinds {
			if !runsPods(k) {
				continue
			}
			_, err := c.list(ctx, k, ns, query{}, func(u *unstructured.Unstructured) error {
				if chosen.has(u) {
					n.of(k, u)
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	claims := schema.GroupResource{Resource: "persistentvolumeclaims"}
	return func(claim *corev1.PersistentVolumeClaim) bool {
		return chosen.has(claim) || n.has(claims, claim.Namespace, claim.Name)
	}, nil
}

// runsPods reports whether objects of a kind may say which claims pods mount: pods, and what makes them.
func runsPods(k kind) bool {
	if !k.namespaced {
		return false
	}
	switch k.Group {
	case "":
		return k.Resource == "pods" || k.Resource == "replicationcontrollers"
	case "apps":
		return k.Resource != "controllerrevisions"
	}
	return k.Group == "batch"
}
