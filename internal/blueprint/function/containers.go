package function

import (
	"context"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
)

// Names of the containers of MultiContainerRun, and of what they share, as published.
const (
	initContainer       = "init"
	backgroundContainer = "background"
	outputContainer     = "output"
	sharedVolume        = "shared"
)

// containersFunction is MultiContainerRun.
func (o Options) containersFunction() blueprint.Function {
	return blueprint.Function{
		Name: "MultiContainerRun", Interrupted: blueprint.Attaches, Run: o.runContainers,
		Required: []string{"backgroundImage", "backgroundCommand", "outputImage", "outputCommand"},
		Optional: argsOfPods("namespace", "initImage", "initCommand", "sharedVolumeMedium", "sharedVolumeSizeLimit", "sharedVolumeDir"),
	}
}

// runContainers runs two containers side by side that share a directory, after one that prepares it. The phase's output is that of the
// one called output; all must end well.
func (o Options) runContainers(ctx context.Context, c blueprint.Call) (map[string]any, error) {
	a := &reader{of: c.Args}
	directory := a.textOr("sharedVolumeDir", "/tmp/")
	worker := func(name string, command []string) corev1.Container {
		return corev1.Container{
			Name: name, Image: a.text(name + "Image"), Command: command,
			VolumeMounts: []corev1.VolumeMount{{Name: sharedVolume, MountPath: directory}},
		}
	}
	shared := &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMedium(a.text("sharedVolumeMedium"))}
	if size := a.text("sharedVolumeSizeLimit"); size != "" {
		limit, err := resource.ParseQuantity(size)
		if err != nil {
			return nil, fault.Wrap("argument sharedVolumeSizeLimit", fault.ErrInvalid, err, "")
		}
		shared.SizeLimit = &limit
	}
	spec := corev1.PodSpec{
		Volumes: []corev1.Volume{{Name: sharedVolume, VolumeSource: corev1.VolumeSource{EmptyDir: shared}}},
		Containers: []corev1.Container{
			worker(outputContainer, a.command("outputCommand")), worker(backgroundContainer, a.command("backgroundCommand")),
		},
	}
	if a.text("initImage") != "" {
		spec.InitContainers = []corev1.Container{worker(initContainer, a.list("initCommand"))} // its image may know what to do
	}
	if a.err != nil {
		return nil, a.err
	}
	params := *c.Params
	params.PodOverride = forWorkers(params.PodOverride, len(spec.InitContainers) > 0)
	c.Params = &params
	pod, err := o.newPod(c, spec)
	if err != nil {
		return nil, err
	}
	pod.Annotations[defaultContainer] = outputContainer
	return o.runPod(ctx, c, pod, outputContainer)
}

// forWorkers has what an ActionSet's override says of the container that other functions make hold for each of those that are here, unless
// it speaks of them too.
func forWorkers(override map[string]any, init bool) map[string]any {
	containers, _ := override["containers"].([]any)
	at := indexNamed(containers, container)
	if at < 0 {
		return override
	}
	generic, _ := containers[at].(map[string]any)
	called := func(name string) map[string]any {
		clone := maps.Clone(generic)
		clone["name"] = name
		return clone
	}
	override = maps.Clone(override)
	containers = slices.Delete(slices.Clone(containers), at, at+1)
	for _, name := range []string{backgroundContainer, outputContainer} {
		if indexNamed(containers, name) < 0 {
			containers = append(containers, called(name))
		}
	}
	override["containers"] = containers
	inits, _ := override["initContainers"].([]any)
	if init && indexNamed(inits, initContainer) < 0 {
		override["initContainers"] = append(slices.Clone(inits), called(initContainer))
	}
	return override
}

// indexNamed is where the container of a name is in a list of an override; -1 where it is not.
func indexNamed(containers []any, name string) int {
	return slices.IndexFunc(containers, func(c any) bool {
		of, _ := c.(map[string]any)
		return of["name"] == name
	})
}
