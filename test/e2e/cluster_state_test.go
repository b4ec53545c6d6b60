//go:build e2e

package e2e

import (
	"encoding/json"
	"slices"
	"testing"
)

// normalised are objects, one line of JSON each, without what the cluster itself puts in. It knows nothing of how Backstay does the same.
func normalised(t *testing.T, list string) []string {
	t.Helper()
	var objects struct {
		Items []map[string]any `json:"items"`
	}
	decode(t, list, &objects)
	var lines []string
	for _, o := range objects.Items {
		meta := o["metadata"].(map[string]any)
		if made := meta["name"]; made == "kube-root-ca.crt" || made == "default" && o["kind"] == "ServiceAccount" {
			continue
		}
		delete(o, "status")
		for _, key := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "ownerReferences"} {
			delete(meta, key)
		}
		without(meta, "annotations", "deployment.kubernetes.io/revision", "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller",
			"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/selected-node")
		switch o["kind"] {
		case "Service":
			if o["spec"].(map[string]any)["clusterIP"] != "None" {
				without(o, "spec", "clusterIP", "clusterIPs")
			}
		case "PersistentVolumeClaim":
			without(o, "spec", "volumeName")
			if finalizers, ok := meta["finalizers"].([]any); ok && len(finalizers) == 1 {
				delete(meta, "finalizers") // of the cluster, on every claim
			}
		}
		line, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	slices.Sort(lines)
	return lines
}

// without takes keys out of a map, and the map out of its own where nothing is left of it.
func without(of map[string]any, name string, keys ...string) {
	inner, ok := of[name].(map[string]any)
	if !ok {
		return
	}
	for _, key := range keys {
		delete(inner, key)
	}
	if len(inner) == 0 {
		delete(of, name)
	}
}
