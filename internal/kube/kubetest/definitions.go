package kubetest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// snapshotModule carries the definitions of snapshots and group snapshots.
const snapshotModule = "github.com/kubernetes-csi/external-snapshotter/client/v8"

// definitions lists the files of the custom resources: Backstay's and Kanister's from this tree, those of CSI from their module.
func definitions(ctx context.Context) ([]string, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", snapshotModule)
	list.Dir = root
	module, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("find module %s: %w", snapshotModule, err)
	}
	var files []string
	for _, pattern := range []string{
		filepath.Join(root, "deploy", "crds", "*.yaml"),
		filepath.Join(root, "deploy", "kanister", "crds.yaml"),
		filepath.Join(string(bytes.TrimSpace(module)), "config", "crd", "*.storage.k8s.io_*.yaml"),
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	return files, nil
}

// install creates the custom resources and waits until they are served.
func install(ctx context.Context, config *rest.Config, files []string) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	crds := client.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
	})
	var names []string
	for _, file := range files {
		defined, err := readDefinitions(file)
		if err != nil {
			return err
		}
		for _, crd := range defined {
			if _, err := crds.Create(ctx, crd, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("install %s: %w", file, err)
			}
			names = append(names, crd.GetName())
		}
	}
	for _, name := range names {
		if err := established(ctx, crds, name); err != nil {
			return err
		}
	}
	return nil
}

func readDefinitions(file string) ([]*unstructured.Unstructured, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []*unstructured.Unstructured
	for document := range strings.SplitSeq(string(content), "\n---\n") {
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &crd.Object); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		all = append(all, crd)
	}
	return all, nil
}

// established waits until the server serves what a definition defines.
func established(ctx context.Context, crds dynamic.ResourceInterface, name string) error {
	const pause = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	for {
		crd, err := crds.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("wait for %s: %w", name, err)
		}
		conditions, _, err := unstructured.NestedSlice(crd.Object, "status", "conditions")
		if err != nil {
			return fmt.Errorf("wait for %s: %w", name, err)
		}
		for _, c := range conditions {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s was not established within %v: %v", name, startDeadline, conditions)
		case <-time.After(pause):
		}
	}
}
