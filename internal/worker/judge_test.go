package worker

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/gitops"
	"github.com/backstay/backstay/internal/point"
)

// history is a repository: the files of its revisions, with their contents.
type history struct {
	files    map[string]map[string]string
	away     error
	asked    []Repository
	branches map[string]string
}

func (h *history) reached(r Repository) (History, error) {
	h.asked = append(h.asked, r)
	return h, h.away
}

func (h *history) Files(_ context.Context, revision, dir string) (map[string]string, error) {
	all, found := h.files[revision]
	if !found {
		return nil, fault.New("find "+revision, fault.ErrNotFound, "", "")
	}
	below := maps.Clone(all)
	maps.DeleteFunc(below, func(name, _ string) bool { return dir != "" && !strings.HasPrefix(name, dir+"/") })
	return below, nil
}

func (h *history) Revert(_ context.Context, head, good, _, _ string) (string, error) {
	return head + "-with-" + good, nil
}

func (h *history) Push(_ context.Context, branch, commit string) error {
	if h.branches == nil {
		h.branches = map[string]string{}
	}
	h.branches[branch] = commit
	return nil
}

func (h *history) Close() {}

func TestJudge(t *testing.T) {
	const head = "cccccccccccccccccccccccccccccccccccccccc"
	good := map[string]string{"shop/app.yaml": "1", "shop/old.yaml": "1", "other/app.yaml": "1"}
	bad := map[string]string{"shop/app.yaml": "2", "shop/job.yaml": "1", "other/app.yaml": "2"}
	for _, test := range []struct {
		name   string
		files  map[string]string // at the head
		change func(s *gitops.State, j *v1alpha1.TransactionStatus, h *history)
		want   string // a part of it; empty for nothing
	}{
		{name: "as it was rolled back", files: bad, want: "shop/app.yaml, shop/job.yaml, shop/old.yaml as in bbbbbbb"},
		{name: "reverted, with something new elsewhere", files: map[string]string{"shop/app.yaml": "1", "shop/old.yaml": "1", "other/app.yaml": "3"}},
		{name: "mended", files: map[string]string{"shop/app.yaml": "3", "shop/job.yaml": "2", "shop/old.yaml": "1"}},
		{name: "mended in part", files: map[string]string{"shop/app.yaml": "3", "shop/job.yaml": "1", "shop/old.yaml": "1"}, want: "shop/job.yaml as in bbbbbbb"},
		{name: "mended by leaving it out", files: map[string]string{"shop/app.yaml": "1", "shop/old.yaml": "2"}},
		{name: "what was deleted stays so", files: map[string]string{"shop/app.yaml": "1"}, want: "shop/old.yaml"},
		{
			name: "nothing of it is below the path", files: map[string]string{"base/app.yaml": "2"}, want: "base/app.yaml as in bbbbbbb",
			change: func(_ *gitops.State, _ *v1alpha1.TransactionStatus, h *history) {
				h.files[goodOne], h.files[badOne] = map[string]string{"base/app.yaml": "1"}, map[string]string{"base/app.yaml": "2"}
			},
		},
		{
			name: "git is away", want: "is not known: git: away",
			change: func(_ *gitops.State, _ *v1alpha1.TransactionStatus, h *history) {
				h.away = fault.New("git", fault.ErrUnavailable, "away", "")
			},
		},
		{
			name: "it cannot be read", want: "git cannot be read",
			change: func(s *gitops.State, _ *v1alpha1.TransactionStatus, _ *history) { s.HeadLost = true },
		},
		{
			name: "what was rolled back to cannot be read, and what git has can", files: map[string]string{"shop/app.yaml": "3", "shop/job.yaml": "2", "shop/old.yaml": "1"},
			change: func(s *gitops.State, j *v1alpha1.TransactionStatus, _ *history) { s.Lost, j.FromPoint = true, true },
		},
		{
			name: "git is gone, and the engine has not noticed", want: "git cannot be read: git: away",
			change: func(s *gitops.State, j *v1alpha1.TransactionStatus, h *history) {
				s.Head, j.FromPoint, h.away = []string{badOne}, true, fault.New("git", fault.ErrUnavailable, "away", "")
			},
		},
		{
			name: "git was reverted before it lost that", want: "git cannot be read",
			change: func(s *gitops.State, j *v1alpha1.TransactionStatus, _ *history) {
				s.Head, j.FromPoint = []string{goodOne}, true
			},
		},
		{
			name: "not automated", files: bad,
			change: func(s *gitops.State, _ *v1alpha1.TransactionStatus, _ *history) { s.Automated = false },
		},
		{
			name: "no repository at a server", want: "no address of a git server",
			change: func(s *gitops.State, _ *v1alpha1.TransactionStatus, _ *history) { s.Sources[0].URL = "/etc" },
		},
		{
			name: "a chart of the same version", want: "chart shop still has version 1.1",
			change: func(s *gitops.State, j *v1alpha1.TransactionStatus, _ *history) {
				s.Sources[0].Chart, s.Head, j.To, j.RolledBack = "shop", []string{"1.1"}, []string{"1.0"}, []string{"1.1"}
			},
		},
		{
			name: "a chart of another version",
			change: func(s *gitops.State, j *v1alpha1.TransactionStatus, _ *history) {
				s.Sources[0].Chart, s.Head, j.To, j.RolledBack = "shop", []string{"1.2"}, []string{"1.0"}, []string{"1.1"}
			},
		},
		{
			name: "another source", want: "other sources",
			change: func(s *gitops.State, _ *v1alpha1.TransactionStatus, _ *history) { s.Head = []string{head, head} },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := &history{files: map[string]map[string]string{goodOne: good, badOne: bad, head: test.files}}
			s := gitops.State{
				Sources: []gitops.Source{{URL: "https://git.example.com/shop.git", Path: "shop"}}, Head: []string{head}, Automated: true,
			}
			j := &v1alpha1.TransactionStatus{Deployment: "test/engine/shop", To: []string{goodOne}, RolledBack: []string{badOne}}
			if test.change != nil {
				test.change(&s, j, h)
			}
			w := New(Options{Git: func(_ context.Context, r Repository, _ ...string) (History, error) { return h.reached(r) }})
			got := w.judge(t.Context(), &v1alpha1.Restore{Status: v1alpha1.RestoreStatus{GitOps: j}}, s)
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestHeldTransactionIsReleasedWhenGitIsMended(t *testing.T) {
	const mended = "cccccccccccccccccccccccccccccccccccccccc"
	l, app := rolling(t)
	s := l.restored("rollback", v1alpha1.RestoreSpec{Latest: latest(app), GitOps: &v1alpha1.Transaction{Revert: true}})
	if got := l.history.branches["backstay/revert-bbbbbbb"]; got != badOne+"-with-"+goodOne || len(s.GitOps.Reverts) != 1 || s.GitOps.Held == "" {
		t.Fatalf("branches %v, status %+v", l.history.branches, s.GitOps)
	}
	if err := l.worker().Release(t.Context(), l.system, "rollback", false); err != nil || len(l.engine.held) != 2 {
		t.Fatalf("%v, held %v", err, l.engine.held)
	}
	l.history.files[mended] = map[string]string{"shop/app.yaml": "1", "shop/job.yaml": "2"}
	l.engine.state.Head = []string{mended}
	if err := l.worker().Release(t.Context(), l.system, "rollback", false); err != nil {
		t.Fatal(err)
	}
	if s = l.restoreStatus("rollback"); len(l.engine.held) > 0 || s.GitOps.Held != "" || s.GitOps.Resumed == nil {
		t.Errorf("held %v, status %+v", l.engine.held, s.GitOps)
	}
}

// TestGitHasLostTheGoodRevision: what it was is known from the copy in the point.
func TestGitHasLostTheGoodRevision(t *testing.T) {
	const head = "cccccccccccccccccccccccccccccccccccccccc"
	good := map[string]string{"shop/app.yaml": "1"}
	broken := fault.New("open the copy", fault.ErrCorrupt, "it is damaged", "")
	for _, test := range []struct {
		name   string
		files  map[string]string // at the head
		stored map[string]map[string]string
		noPart bool
		err    error
		want   string // a part of why it stays held; empty for released
	}{
		{name: "as it was rolled back", files: map[string]string{"shop/app.yaml": "1", "shop/job.yaml": "1"}, want: "shop/job.yaml as in bbbbbbb"},
		{name: "mended", files: map[string]string{"shop/app.yaml": "1", "shop/job.yaml": "2"}},
		{name: "reverted", files: good},
		{name: "a point without a copy", files: good, noPart: true, want: "neither git nor the point has it"},
		{name: "a copy without the revision", files: good, stored: map[string]map[string]string{}, want: "is not known: find " + goodOne},
		{name: "a copy that cannot be opened", files: good, err: broken, want: "is not known: open the copy: it is damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, app := rolling(t)
			record, _, err := l.store.Open(t.Context(), l.points()[0].ID)
			if err != nil {
				t.Fatal(err)
			}
			part := record.Point.Parts[0].Name // any will do
			if !test.noPart {
				l.deployed.Sources[0].Part = part
			}
			delete(l.history.files, goodOne)
			if test.stored == nil {
				test.stored = map[string]map[string]string{goodOne: good}
			}
			within := func() *Worker {
				w := l.worker()
				w.StoredGit = func(ctx context.Context, stored point.Reader) (History, error) {
					if entries, err := stored.List(ctx, ""); err != nil || len(entries) == 0 {
						t.Errorf("the reader is not of part %s: %v, %v", part, entries, err)
					}
					return &history{files: test.stored}, test.err
				}
				return w
			}
			l.restore("rollback", v1alpha1.RestoreSpec{Latest: latest(app), GitOps: &v1alpha1.Transaction{}})
			if err := within().Restore(t.Context(), l.system, "rollback"); err != nil {
				t.Fatal(err)
			}
			if held := l.restoreStatus("rollback").GitOps.Held; !strings.HasPrefix(held, "git still has") {
				t.Fatalf("held: %q", held)
			}
			l.history.files[head] = test.files
			l.engine.state.Head = []string{head}
			if err := within().Release(t.Context(), l.system, "rollback", false); err != nil {
				t.Fatal(err)
			}
			s := l.restoreStatus("rollback").GitOps
			if (s.Held == "") != (test.want == "") || !strings.Contains(s.Held, test.want) || (s.Resumed == nil) != (test.want != "") || len(l.engine.held) > 0 != (test.want != "") {
				t.Errorf("%q, want %q; held %v, resumed %v", s.Held, test.want, l.engine.held, s.Resumed)
			}
		})
	}
}

func TestHeldTransactionIsReleasedByForce(t *testing.T) {
	l, app := rolling(t)
	l.restored("rollback", v1alpha1.RestoreSpec{Latest: latest(app), GitOps: &v1alpha1.Transaction{}})
	if err := l.worker().Release(t.Context(), l.system, "rollback", true); err != nil {
		t.Fatal(err)
	}
	if s := l.restoreStatus("rollback"); len(l.engine.held) > 0 || s.GitOps.Held != "" || s.GitOps.Resumed == nil {
		t.Errorf("held %v, status %+v", l.engine.held, s.GitOps)
	}
}

func TestWhatIsNoGitServerIsNotOpened(t *testing.T) {
	w := New(Options{})
	for _, address := range []string{"/etc", "file:///etc", "ext::sh -c true", "../x", ""} {
		if _, err := w.opened(t.Context(), "argocd/argocd/shop", address); !errors.Is(err, fault.ErrUnsupported) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
