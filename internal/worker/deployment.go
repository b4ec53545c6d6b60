package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
)

const (
	// partDeployment holds nothing, and fails where it is not known which revision was live.
	partDeployment = "instant/deployment"
	// maxImages is how many images a status names.
	maxImages = 200
	// annotationApplied is what was applied, as kubectl and Argo CD write it.
	annotationApplied = "kubectl.kubernetes.io/last-applied-configuration"
)

// sight is what is seen of an application's objects while they are captured: the images that run, and what engines have applied.
type sight struct {
	chosen bool // all that is captured is what an engine deploys, or that needs

	mu     sync.Mutex
	images map[string]bool
	marked map[kube.ObjectKey]mark // by an engine
}

// mark is what an object looks like that an engine has applied.
type mark struct {
	sum    string
	labels map[string]string
}

func newSight(chosen bool) *sight {
	return &sight{chosen: chosen, images: map[string]bool{}, marked: map[kube.ObjectKey]mark{}}
}

// see takes a look at an object. Safe for concurrent use.
func (s *sight) see(key kube.ObjectKey, u *unstructured.Unstructured) {
	var images []string
	if key.Group == "" && key.Kind == "Pod" {
		images = imagesOf(u)
	}
	var m mark
	if s.chosen || isMarked(u) {
		m = mark{sum: sumOf(key, u), labels: maps.Clone(u.GetLabels())}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, image := range images {
		s.images[image] = true
	}
	if m.sum != "" {
		s.marked[key] = m
	}
}

// isMarked reports whether an engine may have applied an object: by the annotations and labels with which it tracks what is its own.
func isMarked(u *unstructured.Unstructured) bool {
	set := u.GetLabels()
	return u.GetAnnotations()["argocd.argoproj.io/tracking-id"] != "" || set["app.kubernetes.io/instance"] != "" ||
		set["kustomize.toolkit.fluxcd.io/name"] != "" || set["helm.toolkit.fluxcd.io/name"] != ""
}

// imagesOf are the images of a pod by digest, as its runtime names them.
func imagesOf(pod *unstructured.Unstructured) []string {
	var images []string
	for _, field := range []string{"containerStatuses", "initContainerStatuses"} {
		all, _, _ := unstructured.NestedSlice(pod.Object, "status", field) // none where it is no list
		for _, c := range all {
			status, _ := c.(map[string]any)
			id, _ := status["imageID"].(string)
			if id = strings.TrimPrefix(id, "docker-pullable://"); id != "" {
				images = append(images, id)
			}
		}
	}
	return images
}

// sumOf is the SHA-256 of what was applied of an object: of what kubectl's annotation says, else of all but its metadata and status. Of
// Secrets it is that of the keys.
func sumOf(key kube.ObjectKey, u *unstructured.Unstructured) string {
	content := map[string]any{}
	switch applied := u.GetAnnotations()[annotationApplied]; {
	case key.Group == "" && key.Kind == "Secret":
		data, _, _ := unstructured.NestedMap(u.Object, "data") // none where it is none
		content["keys"] = slices.Sorted(maps.Keys(data))
	case applied == "" || json.Unmarshal([]byte(applied), &content) != nil:
		content = maps.Clone(u.Object)
		delete(content, "metadata")
		delete(content, "status")
	}
	text, err := json.Marshal(content) // with keys in order
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// manifests is the SHA-256 of the objects that a deployment has applied, in the order of their names; empty for none.
func (s *sight) manifests(d kube.Deployed) string {
	has := d.Has()
	var lines []string
	for key, m := range s.marked {
		if has(key, m.labels) {
			lines = append(lines, strings.Join([]string{key.Group, key.Kind, key.Namespace, key.Name, m.sum}, "\n"))
		}
	}
	if len(lines) == 0 {
		return ""
	}
	slices.Sort(lines)
	sum := sha256.New()
	for _, line := range lines {
		fmt.Fprintln(sum, line)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// deployed finds out what had deployed the application. Its objects have been seen.
func (b *backup) deployed(ctx context.Context, seen *sight) ([]v1alpha1.DeployedStatus, error) {
	all := b.app.Deployed
	if len(all) == 0 && len(seen.marked) > 0 {
		var err error
		if all, err = b.Cluster.DeployedTo(ctx, b.app, b.object.Namespace, b.System); err != nil {
			return nil, err
		}
		all = slices.DeleteFunc(all, func(d kube.Deployed) bool { return seen.manifests(d) == "" })
	}
	var found []v1alpha1.DeployedStatus
	for _, d := range all {
		status, err := b.revisions(ctx, d.Name)
		switch {
		case err != nil && again(ctx, err):
			return nil, err
		case err != nil:
			status.Problem = shorten(err.Error())
		}
		status.Manifests = seen.manifests(d)
		found = append(found, status)
	}
	if len(found) == 1 {
		images := slices.Sorted(maps.Keys(seen.images))
		found[0].Images = images[:min(len(images), maxImages)]
	}
	return found, nil
}

// revisions finds out from where a deployment came, and at which revisions.
func (b *backup) revisions(ctx context.Context, name string) (v1alpha1.DeployedStatus, error) {
	status := v1alpha1.DeployedStatus{Deployment: name}
	d, err := b.Worker.deployment(name)
	if err != nil {
		return status, err
	}
	state, err := d.State(ctx)
	sync := b.object.Spec.Sync
	if sync != nil && sync.Deployment != name {
		sync = nil
	}
	if err != nil && sync == nil {
		return status, err
	}
	if sync == nil {
		if sync, err = b.gated(ctx, state); err != nil {
			return status, err
		}
	}
	from, to := state.Live, []string(nil)
	switch o := state.Operation; {
	case sync != nil:
		from, to = sync.From, sync.To
	case o == nil || o.Started.IsZero() || slices.Equal(o.Revisions, state.Live) && !o.Started.After(b.object.Status.Instant.Begun.Time):
	default:
		to, status.Between = o.Revisions, true
	}
	for i := range max(len(state.Sources), len(from), len(to)) {
		var source v1alpha1.DeployedSource
		if i < len(state.Sources) {
			s := state.Sources[i]
			source = v1alpha1.DeployedSource{URL: withoutCredentials(s.URL), Path: s.Path, Chart: s.Chart}
		}
		source.From, source.To = nth(from, i), nth(to, i)
		status.Sources = append(status.Sources, source)
	}
	return status, nil
}

// gated is the sync that waits at a gate for this Backup, or that a gate has stopped: until then the application is as it was. Nil for none.
func (b *backup) gated(ctx context.Context, state gitops.State) (*v1alpha1.Sync, error) {
	if state.Operation == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	var gates v1alpha1.GateList
	if err := b.Cluster.Client.List(ctx, &gates); err != nil {
		return nil, fault.Wrap("list gates", kube.ClassOf(err), err, "")
	}
	for _, g := range gates.Items {
		sync := g.Status.Sync
		if sync == nil || sync.Deployment != state.Name || sync.Started == nil || sync.Started.Unix() != state.Operation.Started.Unix() {
			continue
		}
		switch {
		case g.Status.Backup == b.object.Name, g.Status.Phase == v1alpha1.GateWaiting:
			return sync, nil
		case g.Status.Phase == v1alpha1.GateClosed:
			return &v1alpha1.Sync{From: sync.From}, nil
		}
	}
	return nil, nil //nolint:nilnil // there is none
}

func nth(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

// withoutCredentials is an address of a repository without a password. What is no address is none.
func withoutCredentials(address string) string {
	if !strings.Contains(address, "://") {
		return address // host:path, or a path
	}
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	if u.Scheme == "ssh" && u.User != nil {
		u.User = url.User(u.User.Username())
	} else {
		u.User = nil
	}
	return u.String()
}

// provenance is what the status says of a GitOps engine, as points have it; nil where none had deployed the application, or several.
func (b *backup) provenance() (*point.Deployment, map[string]string) {
	revisions := map[string]string{}
	var last *point.Deployment
	for _, s := range b.object.Status.Deployed {
		last = &point.Deployment{Name: s.Deployment, Images: s.Images, Manifests: s.Manifests}
		for _, source := range s.Sources {
			last.Sources = append(last.Sources, point.DeployedSource{URL: source.URL, Path: source.Path, Chart: source.Chart, From: source.From, To: source.To})
		}
		if s.Between {
			revisions[s.Deployment] = ""
			continue
		}
		maps.Copy(revisions, last.Revisions())
	}
	if len(b.object.Status.Deployed) != 1 {
		return nil, revisions
	}
	return last, revisions
}

// unknown is why it is not known at which revision an application was that is chosen by what deploys it; nil where it is.
func (b *backup) unknown() error {
	for _, s := range b.object.Status.Deployed {
		if s.Problem != "" && len(b.app.Deployed) > 0 {
			return fmt.Errorf("revision of %s: %s", s.Deployment, s.Problem)
		}
	}
	return nil
}
