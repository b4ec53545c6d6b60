package volume

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// podsUsing lists the pods of a namespace that mount one of the claims; all that mount any claim where claims is nil. A pod that has
// ended counts: its claim cannot be deleted either.
func (r *Restorer) podsUsing(ctx context.Context, namespace string, claims []string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	if err := r.Application.Client.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
		return nil, readFault("list pods of "+namespace, err)
	}
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return !mounts(p.Name, &p.Spec, claims) }), nil
}

// mounts reports whether a pod mounts one of the claims, any where claims is nil.
func mounts(pod string, spec *corev1.PodSpec, claims []string) bool {
	for _, v := range spec.Volumes {
		name := ""
		switch {
		case v.PersistentVolumeClaim != nil:
			name = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			name = pod + "-" + v.Name
		default:
			continue
		}
		if claims == nil || slices.Contains(claims, name) {
			return true
		}
	}
	return false
}

// podNames is for messages: the first few.
func podNames(pods []corev1.Pod) string {
	const few = 3
	var names []string
	for _, p := range pods[:min(few, len(pods))] {
		names = append(names, "pod "+p.Name)
	}
	if len(pods) > few {
		names = append(names, "and more")
	}
	return strings.Join(names, ", ")
}
