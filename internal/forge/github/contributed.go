package github

import (
	"context"
	"encoding/json"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/forge"
)

// Aliases give the fields the names that REST has for them.
const contributionFields = `
repositoriesContributedTo(first: 100, after: $after, includeUserRepositories: true,
  contributionTypes: [COMMIT, ISSUE, PULL_REQUEST, PULL_REQUEST_REVIEW, REPOSITORY]) {
  totalCount
  pageInfo { hasNextPage endCursor }
  nodes {
    node_id: id id: databaseId name owner { login } private: isPrivate fork: isFork archived: isArchived empty: isEmpty description
    html_url: url ssh_url: sshUrl default_branch: defaultBranchRef { name } language: primaryLanguage { name }
    stargazers_count: stargazerCount size: diskUsage has_wiki: hasWikiEnabled
    pushed_at: pushedAt created_at: createdAt updated_at: updatedAt
  }
}`

// contributionPage is an answer to the query: a page, and what shows that none is missing.
type contributionPage struct {
	Account *struct {
		Contributions struct {
			Total int `json:"totalCount"`
			Page  struct {
				More bool   `json:"hasNextPage"`
				End  string `json:"endCursor"`
			} `json:"pageInfo"`
			Nodes []json.RawMessage `json:"nodes"`
		} `json:"repositoriesContributedTo"`
	} `json:"account"`
}

// contributed lists what a user has contributed to, "" being the token's own. Only GraphQL knows it.
func (p *Provider) contributed(ctx context.Context, login string) forge.Repositories {
	const op = "list contributions"
	query := `query($after: String) { account: viewer {` + contributionFields + `} }`
	variables := map[string]any{}
	if login != "" {
		query = `query($after: String, $login: String!) { account: user(login: $login) {` + contributionFields + `} }`
		variables["login"] = login
	}
	return func(yield func(forge.Repository, error) bool) {
		var guard forge.Guard
		for cursor, listed := "", 0; ; {
			page, answer, err := p.contributions(ctx, query, variables)
			if err == nil {
				err = guard.Page(cursor, page.Account.Contributions.Nodes)
			}
			if err != nil {
				yield(forge.Repository{}, fault.Wrap(op, nil, err, ""))
				return
			}
			found := page.Account.Contributions
			for _, raw := range found.Nodes {
				r, err := p.decode(raw, answer.Date())
				r.Class = forge.Contributed
				if !yield(r, fault.Wrap(op, nil, err, "")) || err != nil {
					return
				}
			}
			listed += len(found.Nodes)
			if !found.Page.More {
				if listed < found.Total {
					yield(forge.Repository{}, fault.New(op, fault.ErrIncomplete, "the listing ended before its total", "run it again"))
				}
				return
			}
			cursor = found.Page.End
			variables["after"] = cursor
		}
	}
}

// contributions fetches one page.
func (p *Provider) contributions(ctx context.Context, query string, variables map[string]any) (contributionPage, *forge.Response, error) {
	var page contributionPage
	answer, err := p.client.GraphQL(ctx, p.graphql, query, variables, &page)
	switch {
	case err != nil:
		return page, nil, err
	case page.Account == nil:
		return page, nil, fault.New("", fault.ErrNotFound, "there is no such user", "")
	}
	return page, answer, leftOut(answer.Header)
}
