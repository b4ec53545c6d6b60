package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/backstay/backstay/internal/fault"
)

// Bounds of lists.
const (
	pageItems   = 500
	pageBytes   = 8 << 20  // of a page; one with more is asked for again with fewer items
	pageShrink  = 8        // by what the items of such a page are divided; small pages let them double again
	objectBytes = 32 << 20 // of a page with one item
)

// query says what of a kind is listed, and as it was when.
type query struct {
	at       string // resource version; "" for now
	selector string // of fields
	metadata bool   // nothing but metadata
}

// listing is how a list came out.
type listing struct {
	items       int64     // that were handed over
	expected    int64     // that the server said it has
	live        bool      // the list is of the time it was made, not of the version asked for
	first, last time.Time // between which the moment that a live list is of lies
}

// page is a page of a list as the API server answers it.
type page struct {
	Metadata metav1.ListMeta   `json:"metadata"`
	Items    []json.RawMessage `json:"items"`
	bytes    int
}

// errPageSize says that a page has more bytes than are read.
var errPageSize = fault.New("read the answer", fault.ErrUnsupported, "it is too large", "")

// list hands over every object of a kind in a namespace, in the server's order, without managedFields. It is read in pages of bounded size.
// Where the server cannot say how it was at q.at, the list is of now. An error of each ends the list and comes back as it is.
func (c *Cluster) list(ctx context.Context, k kind, namespace string, q query, each func(*unstructured.Unstructured) error) (listing, error) {
	l := listing{live: q.at == "" || !k.stored}
	if l.live {
		q.at = ""
	}
	limit, next := int64(pageItems), ""
	for {
		asked := c.now()
		p, err := c.page(ctx, k, namespace, q, limit, next)
		switch {
		case errors.Is(err, errPageSize) && limit > 1:
			limit = max(1, limit/pageShrink)
			continue
		case err != nil && next == "" && !l.live && unknownVersion(err):
			l.live, q.at = true, ""
			continue
		case err != nil:
			return l, fault.Wrap("list "+k.String(), ClassOf(err), err, "")
		}
		if next == "" {
			l.first, l.last = asked, c.now() // later pages are of the time of the first
		}
		for _, raw := range p.Items {
			u, err := k.decode(raw)
			if err == nil {
				err = each(u)
			}
			if err != nil {
				return l, err
			}
			l.items++
		}
		l.expected = max(l.expected, l.items)
		if p.Metadata.RemainingItemCount != nil {
			l.expected = max(l.expected, l.items+*p.Metadata.RemainingItemCount)
		}
		if next = p.Metadata.Continue; next == "" {
			return l, nil
		}
		if p.bytes < pageBytes/4 {
			limit = min(2*limit, pageItems)
		}
	}
}

// unknownVersion reports whether a server refused to say how it was at a version: it has forgotten it, does not know it yet, or has no
// such thing.
func unknownVersion(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsBadRequest(err) || apierrors.IsInvalid(err) ||
		apierrors.IsTimeout(err)
}

// page reads one page.
func (c *Cluster) page(ctx context.Context, k kind, namespace string, q query, limit int64, next string) (*page, error) {
	var body []byte
	err := c.patiently(ctx, func() (err error) {
		body, err = c.read(ctx, k, namespace, q, limit, next)
		return err
	})
	if err != nil {
		return nil, err
	}
	p := &page{bytes: len(body)}
	if err := json.Unmarshal(body, p); err != nil {
		return nil, fault.Wrap("read the answer", fault.ErrUnsupported, err, "")
	}
	return p, nil
}

func (c *Cluster) read(ctx context.Context, k kind, namespace string, q query, limit int64, next string) ([]byte, error) {
	accept := "application/json"
	if q.metadata { // not every server has such lists, hence the second choice
		accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
	}
	r := c.Discovery.RESTClient().Get().AbsPath(k.path(namespace)...).SetHeader("Accept", accept).
		Param("limit", strconv.FormatInt(limit, 10)).MaxRetries(0)
	switch {
	case next != "":
		r = r.Param("continue", next)
	case q.at != "":
		r = r.Param("resourceVersion", q.at).Param("resourceVersionMatch", string(metav1.ResourceVersionMatchExact))
	}
	if q.selector != "" {
		r = r.Param("fieldSelector", q.selector)
	}
	stream, err := r.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	bound := int64(pageBytes)
	if limit == 1 {
		bound = objectBytes
	}
	body, err := io.ReadAll(io.LimitReader(stream, bound+1))
	if int64(len(body)) > bound {
		return nil, errPageSize
	}
	return body, err
}

// decode reads an item of a list. Lists of Kubernetes' own kinds do not say the kind of each.
func (k kind) decode(raw []byte) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	if err := utiljson.Unmarshal(raw, &u.Object); err != nil {
		return nil, fault.Wrap("list "+k.String(), fault.ErrUnsupported, err, "")
	}
	if u.Object == nil {
		return nil, fault.New("list "+k.String(), fault.ErrUnsupported, fmt.Sprintf("%.20q is no object", raw), "")
	}
	u.SetGroupVersionKind(k.GroupVersion().WithKind(k.name))
	u.SetManagedFields(nil)
	return u, nil
}
