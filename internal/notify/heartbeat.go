package notify

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
)

// Heartbeat is a dead man's switch: URLs that are asked for, each empty for none. With Success alone, a run that failed is told by
// silence.
type Heartbeat struct {
	Start   fault.Secret
	Success fault.Secret
	Failure fault.Secret
}

// Healthchecks is the heartbeat of a service that takes /start and /fail after the URL of a check, as healthchecks.io does.
func Healthchecks(check fault.Secret) Heartbeat {
	return Heartbeat{Start: suffixed(check, "start"), Success: check, Failure: suffixed(check, "fail")}
}

// suffixed adds a segment to a URL's path. What is no URL is left for the request to refuse.
func suffixed(address fault.Secret, segment string) fault.Secret {
	u, err := url.Parse(address.Reveal())
	if err != nil || u.Host == "" {
		return address
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = ""
	return fault.Secret(u.JoinPath(segment).String())
}

// after is the URL to ask for after a run. Only a run that is complete is a success.
func (h Heartbeat) after(run point.Run) fault.Secret {
	if run.State == point.Complete {
		return h.Success
	}
	return h.Failure
}

func (c *Client) beat(ctx context.Context, address fault.Secret) error {
	return c.send(ctx, "heartbeat", request{method: http.MethodGet, address: address})
}
