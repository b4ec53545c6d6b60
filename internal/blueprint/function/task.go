package function

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/backstay/backstay/internal/blueprint"
)

// kubeTask runs a command in a pod of its own.
func (o Options) kubeTask(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	args := arguments(c.Args)
	image, err := args.text("image")
	if err != nil {
		return nil, err
	}
	command, err := args.list("command")
	if err != nil {
		return nil, err
	}
	pod, err := o.newPod(c, corev1.PodSpec{Containers: []corev1.Container{{Name: container, Image: image, Command: command}}})
	if err != nil {
		return nil, err
	}
	return o.runPod(ctx, c, pod, container)
}
