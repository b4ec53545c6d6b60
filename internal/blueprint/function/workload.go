package function

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// workloadOf is the workload that an action is for; nil where it is for something else.
func workloadOf(p *blueprint.Params) *blueprint.WorkloadParams {
	for _, w := range []*blueprint.WorkloadParams{p.StatefulSet, p.Deployment, p.DeploymentConfig} {
		if w != nil {
			return w
		}
	}
	return nil
}

// podsOf are the pods that a phase names, or those of the workload.
func podsOf(c blueprint.Call, named []string) ([]string, error) {
	if len(named) > 0 {
		return slices.Compact(slices.Sorted(slices.Values(named))), nil
	}
	if w := workloadOf(c.Params); w != nil && len(w.Pods) > 0 {
		return w.Pods, nil
	}
	return nil, fault.New("find the pods", fault.ErrInvalid, "the phase names none, and the object of the action has none that are ready", "")
}

// claimsOf are the claims of a workload's pod, and where they are mounted. The pod may be scaled down: then it is the workload that
// says so.
func claimsOf(p *blueprint.Params, pod string) (map[string]string, error) {
	const op = "find the volumes"
	w := workloadOf(p)
	if w == nil {
		return nil, fault.New(op, fault.ErrInvalid, "the object of the action is no workload", "name them by the argument volumes")
	}
	if claims := w.PersistentVolumeClaims[pod]; len(claims) > 0 {
		return claims, nil
	}
	var set appsv1.StatefulSet // of which a Deployment has what is needed
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(p.Object, &set); err != nil {
		return nil, fault.Wrap(op, fault.ErrInvalid, err, "")
	}
	claims := map[string]string{}
	spec := set.Spec.Template.Spec
	for _, v := range spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			addMount(claims, spec, v.Name, v.PersistentVolumeClaim.ClaimName)
		}
	}
	for _, t := range set.Spec.VolumeClaimTemplates {
		addMount(claims, spec, t.Name, t.Name+"-"+pod)
	}
	if len(claims) == 0 {
		return nil, fault.New(op, fault.ErrInvalid, fmt.Sprintf("pod %s of %s has none", pod, w.Name), "")
	}
	return claims, nil
}

// addMount notes where the first container that has a volume mounts it.
func addMount(claims map[string]string, spec corev1.PodSpec, volume, claim string) {
	for _, c := range spec.Containers {
		for _, m := range c.VolumeMounts {
			if m.Name == volume && claims[claim] == "" {
				claims[claim] = m.MountPath
			}
		}
	}
}
