package gitops

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/backstay/backstay/api/v1alpha1"
)

// ApplicationKind is that of Argo CD's Applications.
func ApplicationKind() schema.GroupVersionKind { return argoKind("Application") }

// ReadApplication is for those who have the object already. It is not changed.
func ReadApplication(object *unstructured.Unstructured) Application { return Application{object} }

// Unhooked is why the operation, last or under way, runs no hooks, as reasons of Gates say it: GateSelfHeal, GateSelective, GateRollback, or
// GateNoHook for one that only applies. Empty for one that runs them.
func (a Application) Unhooked() string {
	o := a.Operation()
	if o == nil || o.Hooks() {
		return ""
	}
	of := a.current()
	heals, _ := field(of, "sync", "autoHealAttemptsCount").(int64)
	switch {
	case o.Resources > 0 && heals > 0:
		return v1alpha1.GateSelfHeal
	case o.Resources > 0:
		return v1alpha1.GateSelective
	case field(of, "sync", "source") != nil, field(of, "sync", "sources") != nil: // of an entry of its history
		return v1alpha1.GateRollback
	}
	return v1alpha1.GateNoHook
}

// Dry reports whether the operation changes nothing.
func (a Application) Dry() bool { return field(a.current(), "sync", "dryRun") == true }

// Before are the revisions that were live before the operation began, also where it has ended.
func (a Application) Before() []string {
	history := a.list("status", "history")
	if len(history) == 0 {
		return nil
	}
	last, _ := history[len(history)-1].(map[string]any)
	began, started := text(last, "deployStartedAt"), a.text("status", "operationState", "startedAt")
	if began == "" || began != started {
		return revisions(last)
	}
	if len(history) == 1 {
		return nil
	}
	last, _ = history[len(history)-2].(map[string]any)
	return revisions(last)
}

// Ended is when the last operation did; zero while it runs.
func (a Application) Ended() time.Time {
	at, err := time.Parse(time.RFC3339, a.text("status", "operationState", "finishedAt"))
	if err != nil {
		return time.Time{}
	}
	return at
}

// HookJob is a Job of a sync's hooks.
type HookJob struct {
	Namespace, Name string
	Running, Failed bool
	Message         string // of one that failed, what its condition says
}

// HookJobs are the Jobs that the operation ran, or runs, before it changed anything.
func (a Application) HookJobs() []HookJob {
	var jobs []HookJob
	for _, r := range a.list("status", "operationState", "syncResult", "resources") {
		m, _ := r.(map[string]any)
		if text(m, "kind") == "Job" && text(m, "hookType") == "PreSync" {
			phase := text(m, "hookPhase")
			jobs = append(jobs, HookJob{text(m, "namespace"), text(m, "name"), phase == "Running", phase == "Failed" || phase == "Error", text(m, "message")})
		}
	}
	return jobs
}

// Applying reports whether the operation has come to what its PreSync hooks come before.
func (a Application) Applying() bool {
	return slices.ContainsFunc(a.list("status", "operationState", "syncResult", "resources"), func(r any) bool {
		m, _ := r.(map[string]any)
		return text(m, "syncPhase") == "Sync"
	})
}

// current is the operation under way, asked for, or last, as Operation takes it.
func (a Application) current() map[string]any {
	at := []string{"status", "operationState", "operation"}
	if a.waits() {
		at = []string{"operation"}
	}
	return asMap(a.field(at...))
}

// waits reports whether an operation is asked for that has not begun.
func (a Application) waits() bool {
	_, asked := a.field("operation").(map[string]any)
	phase := a.text("status", "operationState", "phase")
	return asked && phase != "Running" && phase != "Terminating"
}

// Trim takes out of an Application what nobody here reads of one that is watched: most of it, where thousands are.
func Trim(u *unstructured.Unstructured) {
	u.SetManagedFields(nil)
	keep(u.Object, "apiVersion", "kind", "metadata", "spec", "operation", "status")
	trimOperation(u.Object["operation"])
	if spec, is := u.Object["spec"].(map[string]any); is {
		keep(spec, "project", "destination", "source", "sources", "syncPolicy")
		trimSources(spec)
	}
	if annotations := u.GetAnnotations(); annotations != nil {
		delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
		u.SetAnnotations(annotations)
	}
	status, is := u.Object["status"].(map[string]any)
	if !is {
		return
	}
	keep(status, "history", "sync", "health", "conditions", "operationState")
	if compared, is := status["sync"].(map[string]any); is {
		keep(compared, "status", "revision", "revisions")
	}
	if history, is := status["history"].([]any); is {
		const read = 2
		history = history[max(0, len(history)-read):]
		for _, h := range history {
			if entry, is := h.(map[string]any); is {
				keep(entry, "revision", "revisions", "deployStartedAt")
			}
		}
		status["history"] = slices.Clone(history) // so that the rest can go
	}
	if state, is := status["operationState"].(map[string]any); is {
		trimOperation(state["operation"])
		trimResult(state["syncResult"])
	}
}

func trimOperation(operation any) {
	sync, is := field(asMap(operation), "sync").(map[string]any)
	if is {
		delete(sync, "manifests") // of a sync from somebody's disk
		trimSources(sync)
	}
}

// trimSources leaves of sources where they are.
func trimSources(of map[string]any) {
	if one, is := of["source"].(map[string]any); is {
		keep(one, "repoURL", "path", "chart", "targetRevision", "ref")
	}
	all, _ := of["sources"].([]any)
	for _, s := range all {
		if one, is := s.(map[string]any); is {
			keep(one, "repoURL", "path", "chart", "targetRevision", "ref")
		}
	}
}

// trimResult leaves of what became of each object the first hooks, and one that comes after them.
func trimResult(result any) {
	of, is := result.(map[string]any)
	if !is {
		return
	}
	keep(of, "revision", "revisions", "resources")
	all, _ := of["resources"].([]any)
	var kept []any
	applying := false
	for _, r := range all {
		m, is := r.(map[string]any)
		applies := is && text(m, "syncPhase") == "Sync"
		if is && (text(m, "hookType") == "PreSync" || applies && !applying) {
			keep(m, "kind", "namespace", "name", "hookType", "hookPhase", "syncPhase", "message")
			kept, applying = append(kept, m), applying || applies
		}
	}
	of["resources"] = kept
}

// keep deletes all else of an object.
func keep(of map[string]any, names ...string) {
	for name := range of {
		if !slices.Contains(names, name) {
			delete(of, name)
		}
	}
}
