package notify

import (
	"context"
	"net/http"

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
