package forgetest

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

func testFind(t *testing.T, b *bench) {
	finder, ok := b.provider.(forge.Finder)
	if !ok {
		t.Fatal("the provider finds no single repositories: whatever is not listed would be alarmed as gone")
	}
	names := []string{"renamed", "transferred", "deleted", "blocked", "staying"}
	for _, name := range names {
		b.world.Add(Repo{Owner: b.owner, Name: name})
	}
	all, err := b.list(t, b.provider)
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]forge.Repository{}
	ids := map[string]int64{}
	for _, r := range all {
		before[r.Name] = r
		w, _, _ := b.world.ByName(r.FullName())
		ids[r.Name] = w.ID
	}
	other := b.Owners[len(b.Owners)-1]
	b.world.Rename(ids["renamed"], "renamed-since")
	b.world.Transfer(ids["transferred"], other)
	b.world.Delete(ids["deleted"])
	b.world.Change(ids["blocked"], func(r *Repo) { r.Blocked = true })

	want := map[string]string{"staying": b.owner + "/staying"}
	if !b.Nameless {
		want["renamed"], want["transferred"] = b.owner+"/renamed-since", other+"/transferred"
	}
	for name, full := range want {
		found, err := finder.Find(t.Context(), before[name])
		if err != nil {
			t.Errorf("find %s: %v", name, err)
		} else if found.FullName() != full || found.ID != before[name].ID {
			t.Errorf("%s is found as %s with ID %s, want %s with %s", name, found.FullName(), found.ID, full, before[name].ID)
		}
	}
	gone := []string{"deleted"}
	if b.Nameless {
		gone = append(gone, "renamed", "transferred")
	}
	for _, name := range gone {
		if _, err := finder.Find(t.Context(), before[name]); !errors.Is(err, fault.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := finder.Find(t.Context(), before["blocked"]); err != nil && !errors.Is(err, fault.ErrDenied) {
		t.Errorf("blocked: %v", err)
	}
	b.server.Break(Break{Fault: Answer(500, "{}")})
	if _, err := finder.Find(t.Context(), before["deleted"]); !errors.Is(err, fault.ErrUnavailable) {
		t.Errorf("a server that fails is no proof that a repository is gone: %v", err)
	}
}

func testInspect(t *testing.T, b *bench) {
	inspector, ok := b.provider.(forge.Inspector)
	if !ok {
		t.Fatal("the provider does not say what its credentials are worth")
	}
	expires := b.clock.Now().AddDate(0, 0, 7).Truncate(24 * time.Hour)
	b.world.SetToken(Credentials{Account: "tester", Expires: expires})
	c, err := inspector.Inspect(t.Context())
	if err != nil {
		t.Fatal(b.checkError(t, err))
	}
	if b.Expiry && c.Expires.Sub(expires).Abs() >= 24*time.Hour || !b.Expiry && !c.Expires.IsZero() { // some forges tell the day only
		t.Errorf("expires %s, want %s", c.Expires, expires)
	}
	if b.Scope == "" && len(c.Missing) > 0 || b.Scope != "" && !slices.ContainsFunc(c.Missing, func(s string) bool { return strings.Contains(s, b.Scope) }) {
		t.Errorf("missing scopes are %q, want %q", c.Missing, b.Scope)
	}
	b.server.Break(Break{Fault: Answer(401, `{"message":"401 Unauthorized"}`)})
	if _, err := inspector.Inspect(t.Context()); !errors.Is(err, fault.ErrDenied) {
		t.Errorf("a token that is not accepted: %v", err)
	}
}

func testIssues(t *testing.T, b *bench) {
	reader, ok := b.provider.(forge.IssueReader)
	if ok == b.Untold {
		t.Fatalf("the provider reads issues: %v, the API gives none: %v", ok, b.Untold)
	}
	if b.Untold {
		t.Skip("the API gives no issues")
	}
	r := b.world.Add(Repo{Owner: b.owner, Name: "busy"})
	b.world.AddIssues(r.ID, b.PerOwner)
	all, err := b.list(t, b.provider)
	if err != nil || len(all) != 1 {
		t.Fatalf("listed %d: %v", len(all), err)
	}
	seen := map[int64]bool{}
	for issue, err := range reader.Issues(t.Context(), all[0]) {
		if err != nil {
			t.Fatal(b.checkError(t, err))
		}
		if seen[issue.Number] || !json.Valid(issue.Raw) {
			t.Errorf("issue %d came twice, or is no JSON: %.60q", issue.Number, issue.Raw)
		}
		seen[issue.Number] = true
	}
	if want := len(b.world.Issues(r.ID)); len(seen) != want {
		t.Errorf("read %d issues of %d", len(seen), want)
	}
}
