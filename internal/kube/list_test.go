package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/backstay/backstay/internal/kube"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// apiServer is a small API server: it serves namespaces and config maps, and misbehaves as a test says.
type apiServer struct {
	objects []map[string]any // config maps of the namespace shop
	// answer may answer a list of config maps in the server's place: it returns false to leave that to it.
	answer func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex // a request that was given up may still be answered beside the next
	notReady int        // answers that it is starting, before it is ready; until then it has no kinds
	requests []string   // queries of the lists of config maps
}

// start serves until the test ends.
func (s *apiServer) start(t *testing.T) *kube.Cluster {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return with(t, &rest.Config{Host: server.URL})
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/api":
		fmt.Fprint(w, `{"kind": "APIVersions", "versions": ["v1"]}`)
	case "/apis":
		fmt.Fprint(w, `{"kind": "APIGroupList", "apiVersion": "v1", "groups": []}`)
	case "/readyz":
		if s.starts(1) {
			http.Error(w, "[-]poststarthook/crd-informer-synced failed", http.StatusInternalServerError)
		}
	case "/api/v1":
		if s.starts(0) {
			fmt.Fprint(w, `{"kind": "APIResourceList", "groupVersion": "v1", "resources": []}`)
			return
		}
		fmt.Fprint(w, `{"kind": "APIResourceList", "groupVersion": "v1", "resources": [
			{"name": "configmaps", "kind": "ConfigMap", "namespaced": true, "verbs": ["list"]}]}`)
	case "/api/v1/namespaces":
		fmt.Fprint(w, `{"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "shop"}}]}`)
	case "/api/v1/namespaces/shop/configmaps":
		s.mu.Lock()
		s.requests = append(s.requests, strings.TrimSuffix(r.URL.RawQuery, "&timeout=32s"))
		s.mu.Unlock()
		if s.answer == nil || !s.answer(w, r) {
			s.page(w, r)
		}
	default:
		refuse(w, http.StatusNotFound, "NotFound")
	}
}

// starts reports whether the server has answers left that it is not ready, and takes some of them.
func (s *apiServer) starts(taken int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.notReady
	s.notReady -= taken
	return left > 0
}

// page answers with a page of the config maps.
func (s *apiServer) page(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	from, _ := strconv.Atoi(q.Get("continue"))
	to := min(from+limit, len(s.objects))
	meta := map[string]any{"resourceVersion": "7"}
	if to < len(s.objects) {
		meta["continue"] = strconv.Itoa(to)
		meta["remainingItemCount"] = len(s.objects) - to
	}
	json.NewEncoder(w).Encode(map[string]any{"metadata": meta, "items": s.objects[from:to]})
}

// refuse answers as an API server refuses.
func refuse(w http.ResponseWriter, code int, reason string) {
	w.WriteHeader(code)
	fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": %q, "code": %d, "message": "no: %s"}`, reason, code, reason)
}

// configMaps makes n of them with so many bytes of data each.
func configMaps(n, bytes int) []map[string]any {
	var all []map[string]any
	for i := range n {
		all = append(all, map[string]any{
			"metadata": map[string]any{"name": fmt.Sprintf("c%05d", i), "namespace": "shop", "uid": fmt.Sprintf("u%d", i)},
			"data":     map[string]any{"text": strings.Repeat("x", bytes)},
		})
	}
	return all
}

var atSeven = kube.Moment{ResourceVersion: "7", At: time.Now().Add(-time.Minute)}

func TestListsAreReadPageByPage(t *testing.T) {
	s := &apiServer{objects: configMaps(1201, 10)}
	got := capture(t, s.start(t), whole("shop"), atSeven)
	if got.state != point.Complete || len(got.objects["kubernetes/shop"]) != 1202 {
		t.Errorf("point %s with %d objects: %+v", got.state, len(got.objects["kubernetes/shop"]), got.parts)
	}
	want := []string{"limit=500&resourceVersion=7&resourceVersionMatch=Exact", "continue=500&limit=500", "continue=1000&limit=500"}
	if strings.Join(s.requests, " ") != strings.Join(want, " ") {
		t.Errorf("requests %q, want %q", s.requests, want)
	}
}

func TestPagesAreSmallerWhereObjectsAreLarge(t *testing.T) {
	s := &apiServer{objects: configMaps(14, 1_500_000)}
	got := capture(t, s.start(t), whole("shop"), atSeven)
	if got.state != point.Complete || len(got.objects["kubernetes/shop"]) != 15 {
		t.Errorf("point %s with %d objects: %+v", got.state, len(got.objects["kubernetes/shop"]), got.parts)
	}
	want := "limit=500 limit=62 limit=7 limit=1 continue=1&limit=2 continue=3&limit=2"
	if requests := strings.ReplaceAll(strings.Join(s.requests, " "), "&resourceVersion=7&resourceVersionMatch=Exact", ""); !strings.HasPrefix(requests, want) {
		t.Errorf("requests %q, want %q and so on", requests, want)
	}
}

func TestAServerThatForgotTheMomentIsListedAsItIsNow(t *testing.T) {
	for name, refusal := range map[string]struct {
		code   int
		reason string
	}{
		"expired": {http.StatusGone, "Expired"}, "unsupported": {http.StatusBadRequest, "BadRequest"}, "not yet": {http.StatusGatewayTimeout, "Timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &apiServer{objects: configMaps(3, 10), answer: func(w http.ResponseWriter, r *http.Request) bool {
				exact := r.URL.Query().Has("resourceVersion")
				if exact {
					refuse(w, refusal.code, refusal.reason)
				}
				return exact
			}}
			before := time.Now()
			got := capture(t, s.start(t), whole("shop"), atSeven)

			first, last := got.source.Skew()
			if !first.Equal(atSeven.At) || last.Before(before) || last.After(time.Now()) {
				t.Errorf("skew from %v to %v, want from the moment to now", first, last)
			}
			part := got.parts["kubernetes/shop"]
			if got.state != point.Complete || part.Counts[0].Stored != 4 || !part.Captured.Equal(last) {
				t.Errorf("point %s, part %+v", got.state, part)
			}
			if len(part.Notes) != 1 || part.Notes[0] != "listed as they were shortly after the moment: configmaps" {
				t.Errorf("notes %q", part.Notes)
			}
		})
	}
}

func TestAListThatEndsEarlyLeavesTheCountOpen(t *testing.T) {
	s := &apiServer{objects: configMaps(600, 10), answer: func(w http.ResponseWriter, r *http.Request) bool {
		next := r.URL.Query().Has("continue")
		if next {
			fmt.Fprint(w, `{"metadata": {}, "items": []}`)
		}
		return next
	}}
	got := capture(t, s.start(t), whole("shop"), atSeven)
	count := got.parts["kubernetes/shop"].Counts[0]
	if got.state != point.Incomplete || count.Expected != 601 || count.Stored != 501 {
		t.Errorf("point %s, count %+v", got.state, count)
	}
}

func TestAListThatExpiresHalfWayIsNamed(t *testing.T) {
	s := &apiServer{objects: configMaps(600, 10), answer: func(w http.ResponseWriter, r *http.Request) bool {
		next := r.URL.Query().Has("continue")
		if next {
			refuse(w, http.StatusGone, "Expired")
		}
		return next
	}}
	got := capture(t, s.start(t), whole("shop"), atSeven)
	part := got.parts["kubernetes/shop"]
	if got.state != point.Incomplete || len(part.Counts) != 2 || part.Counts[1].Of != "lists of configmaps" || part.Counts[0].Expected != 601 {
		t.Errorf("point %s, part %+v", got.state, part)
	}
}

func TestAnObjectThatIsTooLargeIsNamedByItsKind(t *testing.T) {
	s := &apiServer{objects: configMaps(1, 33<<20)}
	got := capture(t, s.start(t), whole("shop"), atSeven)
	part := got.parts["kubernetes/shop"]
	if got.state != point.Incomplete || part.State != point.Stored || len(part.Counts) != 2 || part.Counts[1].Of != "lists of configmaps" {
		t.Errorf("point %s, part %+v", got.state, part)
	}
	if len(part.Notes) != 1 || !strings.HasSuffix(part.Notes[0], "it is too large") {
		t.Errorf("notes %q", part.Notes)
	}
}

func TestAPassingFailureIsTriedAgain(t *testing.T) {
	var asked atomic.Int64 // nothing orders who is cut off before who asks again
	s := &apiServer{objects: configMaps(3, 10), answer: func(w http.ResponseWriter, r *http.Request) bool {
		n := asked.Add(1)
		if n > 2 {
			return false
		}
		if n == 1 {
			panic(http.ErrAbortHandler) // the connection ends
		}
		refuse(w, http.StatusInternalServerError, "InternalError")
		return true
	}}
	if got := capture(t, s.start(t), whole("shop"), atSeven); got.state != point.Complete {
		t.Errorf("the point is %s: %+v", got.state, got.parts)
	}
}

func TestAServerThatStartsIsWaitedFor(t *testing.T) {
	s := &apiServer{objects: configMaps(3, 10), notReady: 2}
	got := capture(t, s.start(t), whole("shop"), atSeven)
	if got.state != point.Complete || got.parts["kubernetes/shop"].Counts[0].Stored != 4 {
		t.Errorf("the point is %s: %+v", got.state, got.parts)
	}
}

func TestACaptureThatIsStoppedEndsAtOnce(t *testing.T) {
	s := &apiServer{notReady: 1000}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	source := kube.NewObjects(s.start(t), whole("shop"), point.Subject{Kind: point.SubjectApplication, Name: "test/shop"}, atSeven)
	if _, err := protect.Backup(ctx, memory.New(time.Now), source, "policy"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the context", err)
	}
}

func TestHostileObjectsBreakNoCapture(t *testing.T) {
	deep := any("bottom")
	for range 9000 {
		deep = map[string]any{"a": deep}
	}
	object := func(name, namespace string, data any) map[string]any {
		return map[string]any{"metadata": map[string]any{"name": name, "namespace": namespace}, "data": data}
	}
	long := strings.Repeat("n", 253)
	loop := object("loop", "shop", nil)
	loop["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "name": "loop", "uid": "u"}}
	ending := object("ending", "shop", nil)
	ending["metadata"].(map[string]any)["deletionTimestamp"] = "2026-01-01T00:00:00Z"
	ending["metadata"].(map[string]any)["finalizers"] = []any{"example.com/stuck"}
	s := &apiServer{objects: []map[string]any{
		object("deep", "shop", deep), object(long, "shop", nil), loop, ending,
		object("../../etc/passwd", "shop", nil), object(".", "shop", nil), object("a/b", "shop", nil), object("\x00\u202e", "shop", nil),
		object("words", "shop", map[string]any{"a": "yes", "b": "1e3", "c": "0x1F", "d": "~", "e": "12:30:45", "f": "\u0085\ufeff\x7f", "g": " \n\t ", "h": "2001-01-01"}),
		object("numbers", "shop", map[string]any{"a": 9007199254740993, "b": 1.5, "c": -0.25, "d": 1e300}),
		object("", "shop", nil), object("elsewhere", "other", nil), object("loop", "shop", nil),
		{"metadata": "none"},
		{"metadata": map[string]any{"name": 7, "namespace": "shop"}},
	}}
	got := capture(t, s.start(t), whole("shop"), atSeven)

	part := got.parts["kubernetes/shop"]
	if got.state != point.Incomplete || part.State != point.Stored || part.Counts[0].Expected != 16 || part.Counts[0].Stored != 11 {
		t.Fatalf("point %s, part %.2000v", got.state, part)
	}
	if len(part.Notes) != 5 || !strings.HasPrefix(part.Notes[0], `missing: configmaps/"": `) {
		t.Errorf("notes %q", part.Notes)
	}
	read := got.objects["kubernetes/shop"]
	for _, want := range s.objects[:10] {
		want["apiVersion"], want["kind"] = "v1", "ConfigMap"
		name := want["metadata"].(map[string]any)["name"].(string)
		have, _ := json.Marshal(find(t, read, "configmap/"+name).Object)
		if sent, _ := json.Marshal(want); string(have) != string(sent) {
			t.Errorf("%q: got %.300s, want %.300s", name, have, sent)
		}
	}
}
