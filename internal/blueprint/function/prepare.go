package function

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// prepareFunction is PrepareData.
func (o Options) prepareFunction() blueprint.Function {
	return blueprint.Function{
		Name: "PrepareData", Interrupted: blueprint.Attaches, Run: o.prepareData,
		Required: []string{"namespace", "image", "command"},
		Optional: append(argsOfPods(), "volumes", "serviceaccount", "failOnError"),
	}
}

// prepareData runs a command in a pod that has claims mounted: those that are named, or all of the workload's. A command that fails is an
// error only where failOnError says so.
func (o Options) prepareData(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	main := corev1.Container{Name: container, Image: a.text("image"), Command: a.command("command")}
	spec := corev1.PodSpec{ServiceAccountName: a.text("serviceaccount")}
	namespace, volumes, strict := a.text("namespace"), a.table("volumes"), a.flag("failOnError")
	if a.err != nil {
		return nil, a.err
	}
	if len(volumes) == 0 {
		volumes = workloadVolumes(c.Params)
	}
	if len(volumes) == 0 {
		return nil, fault.New("find the volumes", fault.ErrInvalid, "the phase names none, and the object of the action has none", "name them by the argument volumes")
	}
	for i, claim := range slices.Sorted(maps.Keys(volumes)) {
		readOnly, err := o.readOnly(ctx, namespace, claim)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("volume-%d", i)
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim, ReadOnly: readOnly},
		}})
		main.VolumeMounts = append(main.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: volumes[claim], ReadOnly: readOnly})
	}
	spec.Containers = []corev1.Container{main}
	pod, err := o.newPod(c, spec)
	if err != nil {
		return nil, err
	}
	result, err := o.runPod(ctx, c, pod, container)
	var failed *podFailed
	if errors.As(err, &failed) && !strict {
		c.Log(err.Error())
		return failed.result, nil
	}
	return result, err
}

// workloadVolumes are all claims of the workload that an action is for, and where they are mounted, as published.
func workloadVolumes(p *blueprint.Params) map[string]string {
	volumes := map[string]string{}
	if w := workloadOf(p); w != nil {
		for _, claims := range w.PersistentVolumeClaims {
			for claim := range claims {
				volumes[claim] = "/mnt/prepare_data/" + claim
			}
		}
	}
	return volumes
}
