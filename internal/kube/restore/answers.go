package restore

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/backstay/backstay/internal/fault"
)

// isNoMatch reports whether the cluster does not know a kind.
func isNoMatch(err error) bool {
	var failed *apiutil.ErrResourceDiscoveryFailed
	if errors.As(err, &failed) {
		for _, inner := range *failed {
			if !meta.IsNoMatchError(inner) && !apierrors.IsNotFound(inner) {
				return false
			}
		}
		return true
	}
	return meta.IsNoMatchError(err)
}

// unreachable reports whether the API server was not reached, or could not work.
func unreachable(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err)
}

// passing reports whether an answer may be another in a moment, without anybody changing anything: a server that starts, a webhook
// whose pods are not ready, a kind or namespace that was made just now.
func passing(err error) bool {
	return unreachable(err) || isNoMatch(err) || errors.Is(err, fault.ErrBusy) || apierrors.IsInternalError(err) || apierrors.IsNotFound(err) || apierrors.IsConflict(err) ||
		apierrors.IsUnexpectedServerError(err) || strings.Contains(err.Error(), "failed calling webhook")
}

// unavailable is the error of a plan that could not be made because the API server did not answer.
func unavailable(op string, err error) error {
	if errors.Is(err, context.Canceled) {
		return fault.Wrap(op, nil, err, "")
	}
	return fault.Wrap(op, fault.ErrUnavailable, err, "")
}

// reason is an answer of the API server as one line, without what stands in the object: what a validation found by its field, and the
// values of a Secret masked.
func reason(err error, u *unstructured.Unstructured) string {
	const limit = 400
	text := err.Error()
	var status apierrors.APIStatus
	if errors.As(err, &status) && apierrors.IsInvalid(err) && status.Status().Details != nil && len(status.Status().Details.Causes) > 0 {
		text = "not valid: " + strings.Join(causes(status.Status().Details.Causes), ", ")
	}
	return plain(fault.Redact(text, secretsOf(u)...), limit)
}

// causes are the fields that a validation refuses, with what it says of them after the value.
func causes(all []metav1.StatusCause) []string {
	var found []string
	for _, c := range all {
		said := c.Message
		if at := strings.LastIndex(said, ": "); at >= 0 {
			said = said[at+2:]
		}
		found = append(found, strings.TrimSpace(c.Field+" "+said))
	}
	return slices.Compact(found)
}

// immutable reports whether a change was refused because fields cannot be changed, whatever to.
func immutable(err error) bool {
	if !apierrors.IsInvalid(err) {
		return false
	}
	text := err.Error()
	return strings.Contains(text, "immutable") || strings.Contains(text, "cannot change roleRef") || strings.Contains(text, "may not change once set") ||
		strings.Contains(text, "updates to statefulset spec for fields other than")
}

// secretsOf are the values in a Secret, as they stand in it and decoded.
func secretsOf(u *unstructured.Unstructured) []fault.Secret {
	if u == nil || !isKind(u, "secret") {
		return nil
	}
	var found []fault.Secret
	for _, field := range []string{"data", "stringData"} {
		values, _ := u.Object[field].(map[string]any)
		for _, v := range values {
			text, _ := v.(string)
			found = append(found, fault.Secret(text))
			if clear, err := base64.StdEncoding.DecodeString(text); err == nil {
				found = append(found, fault.Secret(clear))
			}
		}
	}
	return found
}
