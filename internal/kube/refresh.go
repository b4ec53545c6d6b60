package kube

import (
	"context"
	"reflect"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Refresh reads an object again, into o. A plain Get would leave what the object has lost meanwhile: clients decode into what is there.
// On an error o stays as it was.
func Refresh(ctx context.Context, c client.Reader, o client.Object) error {
	is := reflect.ValueOf(o).Elem()
	fresh := reflect.New(is.Type())
	object, _ := fresh.Interface().(client.Object)                                   // of the type of o
	object.GetObjectKind().SetGroupVersionKind(o.GetObjectKind().GroupVersionKind()) // which those need that are unstructured
	if err := c.Get(ctx, client.ObjectKeyFromObject(o), object); err != nil {
		return err
	}
	is.Set(fresh.Elem())
	return nil
}
