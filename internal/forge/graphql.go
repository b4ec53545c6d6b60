package forge

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/backstay/backstay/internal/fault"
)

// GraphQL posts a query and decodes its data into an, also where errors came beside it. Queries change nothing, so they are tried
// again like a GET; mutations belong to Mutate.
func (c *Client) GraphQL(ctx context.Context, path, query string, variables map[string]any, into any) (*Response, error) {
	return c.graphQL(ctx, call{idempotent: true}, path, query, variables, into)
}

// Mutate is GraphQL for mutations: they are not sent again where it is not known whether they were carried out.
func (c *Client) Mutate(ctx context.Context, path, mutation string, variables map[string]any, into any) error {
	_, err := c.graphQL(ctx, call{}, path, mutation, variables, into)
	return err
}

func (c *Client) graphQL(ctx context.Context, l call, path, query string, variables map[string]any, into any) (*Response, error) {
	var answer struct {
		Data   json.RawMessage `json:"data"`
		Errors []graphError    `json:"errors"`
	}
	l.method, l.resource = http.MethodPost, "graphql"
	l.check = func(r *Response) error {
		answer.Data, answer.Errors = nil, nil
		if err := decode(r, &answer); err != nil {
			return err
		}
		for _, e := range answer.Errors {
			if errors.Is(e.kind(), fault.ErrThrottled) {
				return c.graphLimit(r, e)
			}
		}
		return nil
	}
	r, err := c.send(ctx, l, path, nil, map[string]any{"query": query, "variables": variables})
	if err != nil {
		return nil, err
	}
	if len(answer.Data) > 0 && into != nil {
		if err := json.Unmarshal(answer.Data, into); err != nil {
			return nil, fault.New("POST "+printable(path), fault.ErrUnavailable, "the answer is not what was asked for", "")
		}
	}
	if len(answer.Errors) > 0 {
		return r, c.graphFault(path, answer.Errors)
	}
	return r, nil
}

type graphError struct {
	Type       string `json:"type"`
	Message    string `json:"message"`
	Extensions struct {
		Code string `json:"code"`
	} `json:"extensions"`
}

// kind is the class of an error, by the types of GitHub and the codes of others.
func (e graphError) kind() error {
	switch strings.ToUpper(e.Type + e.Extensions.Code) {
	case "RATE_LIMITED", "RATE_LIMIT", "GRAPHQL_RATE_LIMIT":
		return fault.ErrThrottled
	case "NOT_FOUND", "ERR_NOT_FOUND":
		return fault.ErrNotFound
	case "FORBIDDEN", "INSUFFICIENT_SCOPES", "UNAUTHENTICATED", "UNAUTHORIZED", "ERR_ACCESS_DENIED":
		return fault.ErrDenied
	case "INTERNAL", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT":
		return fault.ErrUnavailable
	}
	return fault.ErrInvalid
}

func (c *Client) graphLimit(r *Response, e graphError) error {
	now := c.o.Clock()
	after := retryAfter(r.Header, now)
	if q, ok := quotaOf(r.Header, now); after == 0 && ok && q.remaining <= 0 {
		after = q.reset.Sub(now)
	}
	return &throttled{fault.New("", fault.ErrThrottled, c.clean(e.Message, nil), "run it again later"), after}
}

// graphFault is the first of the errors, with its words.
func (c *Client) graphFault(path string, all []graphError) error {
	text := c.clean(all[0].Message, nil)
	if text == "" {
		text = "the forge gives no reason"
	}
	return fault.New("POST "+printable(path), all[0].kind(), text, "")
}
