package onedev

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Issues implements forge.IssueReader. Each issue has its comments under "comments"; they cost a request.
func (p *Provider) Issues(ctx context.Context, r forge.Repository) iter.Seq2[forge.Issue, error] {
	query := `"Project" is ` + quoted(strings.TrimPrefix(r.FullName(), "/")) + ` order by "Submit Date"`
	return func(yield func(forge.Issue, error) bool) {
		seen := map[int64]bool{}
		for page, err := range p.client.List(ctx, p.pages("/issues", query)) {
			if err != nil {
				yield(forge.Issue{}, err)
				return
			}
			for _, raw := range page.Items {
				issue, id, err := decodeIssue(raw)
				if err == nil && seen[issue.Number] {
					continue
				}
				if err == nil {
					seen[issue.Number] = true
					issue.Raw, err = p.withComments(ctx, raw, id)
				}
				if !yield(issue, err) || err != nil {
					return
				}
			}
		}
	}
}

func decodeIssue(raw json.RawMessage) (issue forge.Issue, id int64, err error) {
	var d struct {
		ID           int64 `json:"id"`
		Number       int64 `json:"number"`
		LastActivity struct {
			Date json.RawMessage `json:"date"`
		} `json:"lastActivity"`
	}
	if err := json.Unmarshal(raw, &d); err != nil || d.ID <= 0 || d.Number <= 0 {
		return forge.Issue{}, 0, fault.New("issue", fault.ErrUnavailable, "the server answers with what is no issue", "")
	}
	return forge.Issue{Number: d.Number, Updated: timeOf(d.LastActivity.Date), Raw: raw}, d.ID, nil
}

// timeOf reads a date, which some versions write as text and others as milliseconds. It is zero where it is neither.
func timeOf(raw json.RawMessage) time.Time {
	var at time.Time
	if json.Unmarshal(raw, &at) == nil {
		return at
	}
	var ms int64
	if json.Unmarshal(raw, &ms) == nil {
		return time.UnixMilli(ms).UTC()
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		at, _ = time.Parse("2006-01-02T15:04:05.000-0700", text) // zero where it is another form
	}
	return at
}

func (p *Provider) withComments(ctx context.Context, raw json.RawMessage, id int64) (json.RawMessage, error) {
	var comments json.RawMessage
	if _, err := p.client.Do(ctx, http.MethodGet, "/issues/"+strconv.FormatInt(id, 10)+"/comments", nil, nil, &comments); err != nil {
		return nil, err
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal(raw, &whole); err != nil {
		return nil, err
	}
	whole["comments"] = comments
	return json.Marshal(whole)
}
