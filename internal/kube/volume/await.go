package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/backstay/backstay/internal/fault"
)

// patience is how long an API server may be away before a call that waits for nothing else gives up.
const patience = 2 * time.Minute

// slowest is how far apart questions get, when what is waited for takes long.
const slowest = 5 * time.Second

// await asks again and again until done, an error that will not pass, or the limit, which gives fault.ErrUnavailable; ctx's end gives
// ctx's error. An API server that does not answer meanwhile is one more thing that is waited for.
func (k *Keeper) await(ctx context.Context, limit time.Duration, op string, done func(context.Context) (bool, error)) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for pause := k.Poll; ; pause = min(pause+pause/4, max(slowest, k.Poll)) {
		ok, err := done(limited)
		switch {
		case err == nil && ok:
			return nil
		case err != nil && !passing(err):
			return fault.Wrap(op, nil, classify(err), "")
		case limited.Err() == nil:
			last = err // one that came of the limit itself says nothing
		}
		select {
		case <-limited.Done():
			return gaveUp(ctx, op, limit, last)
		case <-time.After(pause):
		}
	}
}

func gaveUp(ctx context.Context, op string, limit time.Duration, last error) error {
	if err := ctx.Err(); err != nil {
		return fault.Wrap(op, nil, err, "")
	}
	if last == nil {
		return fault.New(op, fault.ErrUnavailable, fmt.Sprintf("not done within %s", limit), "")
	}
	return fault.Wrap(op, fault.ErrUnavailable, fmt.Errorf("not done within %s: %w", limit, last), "")
}

// call makes one call, again while the API server is away.
func (k *Keeper) call(ctx context.Context, op string, f func(context.Context) error) error {
	return k.await(ctx, patience, op, func(ctx context.Context) (bool, error) {
		err := f(ctx)
		return err == nil, err
	})
}

// passing reports whether an error is of an API server that is away or busy, or of two who wrote at once.
func passing(err error) bool {
	var timeout net.Error
	return utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || connectionEnded(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &timeout) && timeout.Timeout() ||
		errors.Is(err, context.DeadlineExceeded) ||
		apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsConflict(err)
}

// connectionEnded reports whether the connection that a request shares with others ended: it was "lost", or "force closed" because somebody
// else's request found it broken. Those errors have no type and no name.
func connectionEnded(err error) bool {
	return strings.Contains(err.Error(), "http2: client connection ")
}

// classify gives an answer of the API server its class; an error that has one keeps it.
func classify(err error) error {
	var kind error
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		kind = fault.ErrDenied
	case apierrors.IsNotFound(err):
		kind = fault.ErrNotFound
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		kind = fault.ErrRefused
	case absent(err):
		kind = fault.ErrUnsupported
	}
	if kind == nil {
		return err
	}
	return fault.Wrap("", kind, err, "")
}

// absent reports whether the cluster does not know a kind.
func absent(err error) bool { return meta.IsNoMatchError(err) }

// remove deletes an object; one that is gone is no error. What depends on it goes in the background.
func (k *Keeper) remove(ctx context.Context, object client.Object) error {
	return k.call(ctx, "delete "+describe(object), func(ctx context.Context) error {
		err := k.Cluster.Client.Delete(ctx, object, client.PropagationPolicy(metav1.DeletePropagationBackground))
		if absent(err) {
			return nil
		}
		return client.IgnoreNotFound(err)
	})
}

// gone waits until an object is no more.
func (k *Keeper) gone(ctx context.Context, limit time.Duration, object client.Object) error {
	return k.await(ctx, limit, "wait until "+describe(object)+" is gone", func(ctx context.Context) (bool, error) {
		err := k.Cluster.Client.Get(ctx, client.ObjectKeyFromObject(object), object)
		return apierrors.IsNotFound(err) || absent(err), ignoreAbsent(client.IgnoreNotFound(err))
	})
}

// ignoreNotFound passes over the error of something that is gone, which may be wrapped.
func ignoreNotFound(err error) error {
	if errors.Is(err, fault.ErrNotFound) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// ignoreAbsent passes over the error of a kind that the cluster does not know.
func ignoreAbsent(err error) error {
	if absent(err) {
		return nil
	}
	return err
}

// mark sets labels and annotations of an object, and takes off those that are nil; the others stay as they are.
func (k *Keeper) mark(ctx context.Context, object client.Object, labels, annotations map[string]any) error {
	metadata := map[string]any{"labels": labels}
	if len(annotations) > 0 { // for a null would take all of them off
		metadata["annotations"] = annotations
	}
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	return k.call(ctx, "label "+describe(object), func(ctx context.Context) error {
		return k.Cluster.Client.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch))
	})
}

// list lists objects; a kind that the cluster does not know has none.
func (k *Keeper) list(ctx context.Context, list client.ObjectList, which ...client.ListOption) ([]client.Object, error) {
	err := k.call(ctx, "list what is there", func(ctx context.Context) error {
		return ignoreAbsent(k.Cluster.Client.List(ctx, list, which...))
	})
	if err != nil {
		return nil, err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	var objects []client.Object
	for _, item := range items {
		if object, ok := item.(client.Object); ok {
			objects = append(objects, object)
		}
	}
	return objects, nil
}

// describe names an object for messages.
func describe(object client.Object) string {
	kind := object.GetObjectKind().GroupVersionKind().Kind
	if kind == "" {
		kind = fmt.Sprintf("%T", object)
		kind = kind[strings.LastIndexByte(kind, '.')+1:]
	}
	name := object.GetName()
	if namespace := object.GetNamespace(); namespace != "" {
		name = namespace + "/" + name
	}
	return kind + " " + name
}
