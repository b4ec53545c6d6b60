package kube_test

import (
	"slices"
	"testing"

	"github.com/backstay/backstay/internal/kube/kubetest"
	"github.com/backstay/backstay/internal/point"
)

func TestObjectsAreThoseOfTheMoment(t *testing.T) {
	c := connect(t)
	ns := kubetest.Namespace(t, c.Config)
	before := create(t, c, ns, `{apiVersion: v1, kind: ConfigMap, metadata: {name: changed}, data: {colour: blue}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: deleted}, data: {colour: blue}}
---
{apiVersion: v1, kind: Secret, metadata: {name: kept}, stringData: {password: hunter2}}`)
	at := moment(t, c)
	update(t, c, before[0], "red", "data", "colour")
	if err := c.Client.Delete(t.Context(), before[1]); err != nil {
		t.Fatal(err)
	}
	create(t, c, ns, `{apiVersion: v1, kind: ConfigMap, metadata: {name: later}}`)

	got := capture(t, c, whole(ns), at)

	objects := got.objects["kubernetes/"+ns]
	want := []string{"configmap/changed", "configmap/deleted", "namespace/" + ns, "secret/kept"}
	if found := names(objects); !slices.Equal(found, want) {
		t.Errorf("got %q, want %q", found, want)
	}
	changed := find(t, objects, "configmap/changed")
	if colour := changed.Object["data"].(map[string]any)["colour"]; colour != "blue" {
		t.Errorf("the value is %v, which it became after the moment", colour)
	}
	if changed.GetManagedFields() != nil || changed.GetUID() == "" {
		t.Errorf("metadata %v: managedFields go, all else stays", changed.Object["metadata"])
	}
	if got.state != point.Complete {
		t.Errorf("the point is %s: %+v", got.state, got.parts)
	}
	if first, last := got.source.Skew(); !first.Equal(at.At) || !last.Equal(at.At) {
		t.Errorf("skew from %v to %v, although all was listed as it was at %v", first, last, at.At)
	}
	part := got.parts["kubernetes/"+ns]
	if part.Mark != at.Mark || part.Revision != at.ResourceVersion || len(part.Counts) != 1 || part.Counts[0].Stored != 4 {
		t.Errorf("part %+v", part)
	}
}
