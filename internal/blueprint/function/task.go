package function

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/blueprint"
)

// kubeTask runs a command in a pod of its own.
func (o Options) kubeTask(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	main := corev1.Container{Name: container, Image: a.text("image"), Command: a.command("command")}
	if a.err != nil {
		return nil, a.err
	}
	pod, err := o.newPod(c, corev1.PodSpec{Containers: []corev1.Container{main}})
	if err != nil {
		return nil, err
	}
	return o.runPod(ctx, c, pod, container)
}
