//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/api/v1alpha1"
)

// relics is a kind with an object; with a conversion that nobody serves its objects can no longer be listed.
const (
	relics = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: relics.dead.backstay.io}
spec:
  group: dead.backstay.io
  names: {plural: relics, singular: relic, kind: Relic}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`
	relicsThatNobodyConverts = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: relics.dead.backstay.io}
spec:
  group: dead.backstay.io
  names: {plural: relics, singular: relic, kind: Relic}
  scope: Namespaced
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1]
      clientConfig: {service: {namespace: nowhere, name: nobody}}
  versions:
  - {name: v1, served: false, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
  - {name: v2, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`
)

// TestClusterWhatIsMissingIsNamed backs up and restores what cannot be had whole: it ends incomplete, and says what is missing.
func TestClusterWhatIsMissingIsNamed(t *testing.T) {
	c := startCluster(t, "backstay")
	i := install(t, c, t.TempDir())
	const ns = "half"
	c.kubectl(t, "delete", "validatingwebhookconfiguration", "half-rejects", "--ignore-not-found") // of a run that was killed
	c.tally(t, ns, "csi-plain-sc")

	backup := func(t *testing.T, wantExit int, names ...string) v1alpha1.BackupStatus {
		t.Helper()
		r := i.run(t, "backup", "app/"+ns, "--policy", "half", "--json")
		if r.exit != wantExit {
			t.Errorf("exit %d, want %d\n%s", r.exit, wantExit, r.stderr)
		}
		var said struct {
			Status v1alpha1.BackupStatus `json:"status"`
		}
		decode(t, r.stdout, &said)
		all := strings.Join(said.Status.Problems, "\n")
		for _, name := range names {
			if !strings.Contains(all, name) {
				t.Errorf("problems do not name %q:\n%s", name, all)
			}
		}
		return said.Status
	}
	policy := func(t *testing.T, capture string) {
		t.Helper()
		c.apply(t, system, `
apiVersion: backstay.io/v1alpha1
kind: Policy
metadata: {name: half}
spec:
  location: main
  suspend: true
  schedule: {cron: "@yearly"}
  sources: [{applications: {namespaces: [half]`+capture+`}}]
`)
	}

	t.Run("a driver without snapshots", func(t *testing.T) {
		policy(t, "")
		s := backup(t, 3, "volumes/half/a", "plain.csi.backstay.io")
		if s.Phase != v1alpha1.PhaseIncomplete || s.Parts.Failed != 1 {
			t.Errorf("phase %s, parts %+v", s.Phase, s.Parts)
		}
	})
	t.Run("skipped as asked", func(t *testing.T) {
		policy(t, ", volumes: {withoutSnapshot: skip}")
		if s := backup(t, 0); s.Parts.Skipped != 1 {
			t.Errorf("parts %+v", s.Parts)
		}
	})
	t.Run("read live, where pods may not have a path of the node", func(t *testing.T) {
		policy(t, ", volumes: {withoutSnapshot: live}")
		backup(t, 3, "volumes/half/a", "forbidden")
	})
	t.Run("read live", func(t *testing.T) {
		c.kubectl(t, "label", "namespace", system, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
		s := backup(t, 0)
		id := s.Point
		if shown := i.fromVault(t, "show", id); !strings.Contains(shown, "crash-inconsistent") {
			t.Errorf("a copy of a running volume does not say so:\n%s", shown)
		}
	})
	t.Run("a pod that cannot be brought to rest", func(t *testing.T) {
		policy(t, ", volumes: {withoutSnapshot: skip}, hooks: [{selector: {matchLabels: {app: counter}}, before: [/no-such-program]}]")
		backup(t, 3, "instant/hooks", "counter")
	})
	t.Run("the key that evidence is signed with", func(t *testing.T) {
		policy(t, ", volumes: {withoutSnapshot: skip}")
		key, id := c.evidenceSecret(t)
		before := i.evidence(t)
		if before.exit != 0 || before.Statements < 4 || before.Signers[id] != before.Statements { // each of the Jobs above made one
			t.Fatalf("evidence %+v, want all of it signed with %s", before, id)
		}
		c.kubectl(t, "-n", system, "delete", "secret", "backstay-evidence")
		unsigned := backup(t, 0, "evidence is not signed", "it is lost")
		c.kubectl(t, "-n", system, "delete", "restorepoint", unsigned.RestorePoint)
		c.wait(t, "the location says that evidence is not signed", 2*time.Minute, func() (bool, string) {
			said := c.kubectl(t, "-n", system, "get", "location", "main", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].message}`)
			return strings.Contains(said, "evidence is not signed"), said
		})
		if lost := i.evidence(t); lost.exit != 3 || len(lost.Unsigned) != 2 || lost.Deleted != 1 || len(lost.Faults) != 0 {
			t.Errorf("with the key lost: %+v, want a point and its deletion unsigned", lost)
		}
		c.apply(t, system, "apiVersion: v1\nkind: Secret\nmetadata: {name: backstay-evidence}\ndata: {key.pem: "+key+"}\n")
		if s := backup(t, 0); strings.Contains(strings.Join(s.Problems, "\n"), "evidence") {
			t.Errorf("problems %q", s.Problems)
		}
		if after := i.evidence(t); after.Signers[id] != before.Statements+1 || len(after.Unsigned) != 2 || len(after.Faults) != 0 {
			t.Errorf("with the key put back: %+v", after)
		}
	})
	t.Run("objects that will not list", func(t *testing.T) {
		policy(t, ", volumes: {withoutSnapshot: skip}")
		c.apply(t, "default", relics)
		defer func() { // the kind can go only when its objects can be listed again
			c.kubectl(t, "patch", "crd", "relics.dead.backstay.io", "--type=merge", "-p", `{"spec":{"conversion":{"strategy":"None","webhook":null}}}`)
			c.kubectl(t, "delete", "crd", "relics.dead.backstay.io", "--timeout=240s")
		}()
		c.kubectl(t, "wait", "--for=condition=Established", "--timeout=240s", "crd/relics.dead.backstay.io")
		c.apply(t, ns, "apiVersion: dead.backstay.io/v1\nkind: Relic\nmetadata: {name: old}\n")
		c.apply(t, "default", relicsThatNobodyConverts)
		backup(t, 3, "kubernetes/half", "relics.dead.backstay.io")
	})
	t.Run("a webhook that rejects", func(t *testing.T) {
		policy(t, ", volumes: {withoutSnapshot: skip}")
		backup(t, 0)
		c.kubectl(t, "-n", ns, "delete", "configmap", "settings")
		c.apply(t, "default", `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: half-rejects}
webhooks:
- name: rejects.backstay.io
  admissionReviewVersions: [v1]
  sideEffects: None
  timeoutSeconds: 2
  clientConfig: {url: "https://127.0.0.1:1/"}
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: half}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
`)
		defer c.kubectl(t, "delete", "validatingwebhookconfiguration", "half-rejects")
		r := i.run(t, "restore", "app/"+ns, "--only", "config", "--yes")
		if r.exit != 3 || !strings.Contains(r.stderr, "settings") {
			t.Errorf("exit %d\n%s", r.exit, r.stderr)
		}
	})
	c.settled(t)
	c.noLeftovers(t)
}

// fromVault runs backstay on the vault itself, as somebody who has nothing but location and password.
func (i *installed) fromVault(t *testing.T, args ...string) string {
	t.Helper()
	r := i.off(t, t.TempDir(), args...)
	if r.exit != 0 {
		t.Fatalf("backstay %s: exit %d\n%s", strings.Join(args, " "), r.exit, r.stderr)
	}
	return r.stdout
}
