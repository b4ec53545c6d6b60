//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const argoSettings = "../../deploy/argocd/argocd-cm.yaml"

// TestArgoHealth has Argo CD itself judge objects by the scripts of deploy/argocd.
func TestArgoHealth(t *testing.T) {
	argocd := filepath.Join(program(t, "BACKSTAY_TEST_ARGOCD"), "argocd")
	conditions := func(ready, reconciling, stalled string) string {
		return `{conditions: [{type: Ready, status: "` + ready + `", message: told, observedGeneration: 2}, ` +
			`{type: Reconciling, status: "` + reconciling + `", message: told, observedGeneration: 2}, ` +
			`{type: Stalled, status: "` + stalled + `", message: told, observedGeneration: 2}]}`
	}
	for _, test := range []struct{ kind, spec, status, health, message string }{
		{"Location", "{}", "{}", "Progressing", "not looked at it yet"},
		{"Location", "{}", conditions("Unknown", "True", "False"), "Progressing", "told"},
		{"Location", "{}", conditions("True", "False", "False"), "Healthy", "told"},
		{"Location", "{}", conditions("False", "True", "False"), "Progressing", "told"},
		{"Location", "{}", conditions("False", "False", "True"), "Degraded", "told"},
		{"Location", "{}", strings.ReplaceAll(conditions("True", "False", "False"), ": 2}", ": 1}"), "Progressing", "not looked at it yet"},
		{"Policy", "{suspend: true}", conditions("True", "False", "False"), "Suspended", "does not run"},
		{"Policy", "{}", "{}", "Progressing", "not looked at it yet"},
		{"Policy", "{}", conditions("True", "False", "False"), "Healthy", "told"},
		{"Policy", "{}", conditions("False", "False", "False"), "Degraded", "told"},
		{"Policy", "{}", conditions("False", "False", "True"), "Degraded", "told"},
		{"RestorePoint", "{}", conditions("True", "False", "False"), "Healthy", "told"},
		{"RestorePoint", "{}", conditions("False", "False", "True"), "Degraded", "told"},
		{"Backup", "{}", "{}", "Progressing", "not looked at it yet"},
		{"Backup", "{}", "{phase: Moving}", "Progressing", "Moving"},
		{"Backup", "{}", "{phase: Complete}", "Healthy", "Complete"},
		{"Backup", "{}", "{phase: Incomplete, problems: [claim data, claim logs]}", "Degraded", "Incomplete: claim data"},
		{"Restore", "{}", "{phase: Failed}", "Degraded", "Failed"},
		{"Restore", "{}", "{phase: Planned}", "Healthy", "Planned"},
		{"Restore", "{}", "{phase: Complete, gitops: {deployment: argocd/argocd/shop, held: the migration is in git}}", "Healthy", "held: the migration"},
		{"Drill", "{}", "{phase: Incomplete, problems: [no rows]}", "Degraded", "Incomplete: no rows"},
		{"Drill", "{}", "{phase: Complete}", "Healthy", "Complete"},
		{"Gate", "{}", "{}", "Progressing", "no Backstay controller"},
		{"Gate", "{}", "{phase: Waiting, message: waits for snapshots}", "Progressing", "waits for snapshots"},
		{"Gate", "{}", "{phase: Open, reason: FreshPoint, message: as fresh as asked for}", "Healthy", "as fresh"},
		{"Gate", "{}", "{phase: Closed, reason: BackupFailed, message: the hook failed}", "Degraded", "the hook failed"},
		{"Gate", "{}", "{phase: Ungated, reason: SelfHeal}", "Healthy", "SelfHeal"},
	} {
		t.Run(test.kind+" "+test.health, func(t *testing.T) {
			object := filepath.Join(t.TempDir(), "object.yaml")
			text := "apiVersion: backstay.io/v1alpha1\nkind: " + test.kind + "\nmetadata: {name: one, namespace: shop, generation: 2}\n" +
				"spec: " + test.spec + "\nstatus: " + test.status + "\n"
			if err := os.WriteFile(object, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), argocd, "admin", "settings", "resource-overrides", "health", object, "--argocd-cm-path", argoSettings)
			cmd.Env = append(os.Environ(), "ARGOCD_BINARY_NAME=argocd", "HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "STATUS: "+test.health+"\n") || !strings.Contains(string(out), test.message) {
				t.Errorf("%v\n%s\nwant %s: %s", err, out, test.health, test.message)
			}
		})
	}
}

// TestArgoExclusions: what declares is Argo CD's, what was made is not.
func TestArgoExclusions(t *testing.T) {
	text, err := os.ReadFile(argoSettings)
	if err != nil {
		t.Fatal(err)
	}
	var settings corev1.ConfigMap
	if err := yaml.UnmarshalStrict(text, &settings); err != nil {
		t.Fatal(err)
	}
	var rules []struct {
		APIGroups []string `json:"apiGroups"`
		Kinds     []string `json:"kinds"`
	}
	if err := yaml.UnmarshalStrict([]byte(settings.Data["resource.exclusions"]), &rules); err != nil {
		t.Fatal(err)
	}
	definitions, err := filepath.Glob("../../deploy/crds/backstay.io_*.yaml")
	if err != nil || len(definitions) == 0 {
		t.Fatalf("%d definitions, %v", len(definitions), err)
	}
	for _, file := range definitions {
		var definition struct {
			Spec struct {
				Names struct {
					Kind string `json:"kind"`
				} `json:"names"`
			} `json:"spec"`
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = yaml.Unmarshal(text, &definition)
		}
		if err != nil {
			t.Fatal(err)
		}
		kind := definition.Spec.Names.Kind
		if settings.Data["resource.customizations.health.backstay.io_"+kind] == "" {
			t.Errorf("no health of %s", kind)
		}
		declares := kind == "Location" || kind == "Policy"
		if excluded := slices.Contains(rules[0].Kinds, kind); excluded == declares {
			t.Errorf("%s is excluded: %v", kind, excluded)
		}
	}
}
