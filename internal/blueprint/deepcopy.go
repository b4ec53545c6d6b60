package blueprint

import (
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The copies are written by hand, for what generators do not copy: arguments and outputs are any JSON.

// copyAny copies what JSON and YAML decode to.
func copyAny(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return copyMap(v)
	case []any:
		if v == nil {
			return v
		}
		c := make([]any, len(v))
		for i := range v {
			c[i] = copyAny(v[i])
		}
		return c
	}
	return v
}

func copyMap(m map[string]any) map[string]any {
	if m == nil {
		return nil
	}
	c := make(map[string]any, len(m))
	for k, v := range m {
		c[k] = copyAny(v)
	}
	return c
}

// copied is a pointer to a copy of what p points to, made deep by deepen.
func copied[T any](p *T, deepen func(*T)) *T {
	if p == nil {
		return nil
	}
	c := *p
	if deepen != nil {
		deepen(&c)
	}
	return &c
}

// copyMapOf copies a map whose values deepen makes deep copies of.
func copyMapOf[V any](m map[string]V, deepen func(*V)) map[string]V {
	if m == nil {
		return nil
	}
	c := make(map[string]V, len(m))
	for k, v := range m {
		deepen(&v)
		c[k] = v
	}
	return c
}

// copySliceOf copies a slice whose elements deepen makes deep copies of.
func copySliceOf[E any](s []E, deepen func(*E)) []E {
	c := slices.Clone(s)
	for i := range c {
		deepen(&c[i])
	}
	return c
}

func deepenArtifact(a *Artifact) { a.KeyValue = maps.Clone(a.KeyValue) }

func deepenPhase(p *Phase) {
	p.Objects = maps.Clone(p.Objects)
	p.Args = copyMap(p.Args)
}

func deepenAction(a *Action) {
	a.ConfigMapNames = slices.Clone(a.ConfigMapNames)
	a.SecretNames = slices.Clone(a.SecretNames)
	a.InputArtifactNames = slices.Clone(a.InputArtifactNames)
	a.OutputArtifacts = copyMapOf(a.OutputArtifacts, deepenArtifact)
	a.Phases = copySliceOf(a.Phases, deepenPhase)
	a.DeferPhase = copied(a.DeferPhase, deepenPhase)
}

func deepenBlueprint(b *Blueprint) {
	b.ObjectMeta = *b.ObjectMeta.DeepCopy()
	b.Actions = copyMapOf(b.Actions, func(a **Action) { *a = copied(*a, deepenAction) })
}

func deepenActionSpec(s *ActionSpec) {
	s.Artifacts = copyMapOf(s.Artifacts, deepenArtifact)
	s.ConfigMaps = maps.Clone(s.ConfigMaps)
	s.Secrets = maps.Clone(s.Secrets)
	s.Profile = copied(s.Profile, nil)
	s.PodOverride = copyMap(s.PodOverride)
	s.Options = maps.Clone(s.Options)
	s.PodLabels = maps.Clone(s.PodLabels)
	s.PodAnnotations = maps.Clone(s.PodAnnotations)
}

func deepenPhaseStatus(p *PhaseStatus) {
	p.Output = copyMap(p.Output)
	p.Progress.LastTransitionTime = p.Progress.LastTransitionTime.DeepCopy()
}

func deepenActionStatus(s *ActionStatus) {
	s.Phases = copySliceOf(s.Phases, deepenPhaseStatus)
	s.Artifacts = copyMapOf(s.Artifacts, deepenArtifact)
	deepenPhaseStatus(&s.DeferPhase)
}

func deepenStatus(s *ActionSetStatus) {
	s.Actions = copySliceOf(s.Actions, deepenActionStatus)
	s.Progress.LastTransitionTime = s.Progress.LastTransitionTime.DeepCopy()
}

func deepenActionSet(a *ActionSet) {
	a.ObjectMeta = *a.ObjectMeta.DeepCopy()
	a.Spec = copied(a.Spec, func(s *ActionSetSpec) { s.Actions = copySliceOf(s.Actions, deepenActionSpec) })
	a.Status = a.Status.DeepCopy()
}

func deepenProfile(p *Profile) {
	p.ObjectMeta = *p.ObjectMeta.DeepCopy()
	p.Credential.KeyPair = copied(p.Credential.KeyPair, nil)
	p.Credential.Secret = copied(p.Credential.Secret, nil)
	p.Credential.KopiaServerSecret = copied(p.Credential.KopiaServerSecret, func(k *KopiaServerSecret) {
		deepenField := func(f *KopiaServerField) { f.Secret = copied(f.Secret, nil) }
		k.UserPassphrase = copied(k.UserPassphrase, deepenField)
		k.TLSCert = copied(k.TLSCert, deepenField)
		k.ConnectOptions = maps.Clone(k.ConnectOptions)
	})
}

func deepenList(l *metav1.ListMeta) { *l = *l.DeepCopy() }

// DeepCopy shares nothing with b.
func (b *Blueprint) DeepCopy() *Blueprint { return copied(b, deepenBlueprint) }

// DeepCopyObject makes it a runtime.Object.
func (b *Blueprint) DeepCopyObject() runtime.Object { return b.DeepCopy() }

// DeepCopyObject makes it a runtime.Object.
func (l *BlueprintList) DeepCopyObject() runtime.Object {
	return copied(l, func(l *BlueprintList) {
		deepenList(&l.ListMeta)
		l.Items = copySliceOf(l.Items, deepenBlueprint)
	})
}

// DeepCopy shares nothing with a.
func (a *ActionSet) DeepCopy() *ActionSet { return copied(a, deepenActionSet) }

// DeepCopyObject makes it a runtime.Object.
func (a *ActionSet) DeepCopyObject() runtime.Object { return a.DeepCopy() }

// DeepCopy shares nothing with s.
func (s *ActionSetStatus) DeepCopy() *ActionSetStatus { return copied(s, deepenStatus) }

// DeepCopyObject makes it a runtime.Object.
func (l *ActionSetList) DeepCopyObject() runtime.Object {
	return copied(l, func(l *ActionSetList) {
		deepenList(&l.ListMeta)
		l.Items = copySliceOf(l.Items, deepenActionSet)
	})
}

// DeepCopy shares nothing with p.
func (p *Profile) DeepCopy() *Profile { return copied(p, deepenProfile) }

// DeepCopyObject makes it a runtime.Object.
func (p *Profile) DeepCopyObject() runtime.Object { return p.DeepCopy() }

// DeepCopyObject makes it a runtime.Object.
func (l *ProfileList) DeepCopyObject() runtime.Object {
	return copied(l, func(l *ProfileList) {
		deepenList(&l.ListMeta)
		l.Items = copySliceOf(l.Items, deepenProfile)
	})
}
