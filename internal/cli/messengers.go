package cli

import (
	"context"
	"errors"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/notify"
)

// notifier is who is told of the runs of a policy; one that tells nobody for none. Those whose secrets cannot be read are the error.
func (b *builder) notifier(ctx context.Context, n *v1alpha1.Notify) (*notify.Notifier, error) {
	client := notify.NewClient(notify.ClientOptions{UserAgent: "backstay/" + b.app.Version})
	told := &notify.Notifier{Client: client}
	if n == nil {
		return told, nil
	}
	var failed error
	told.Always = n.When == v1alpha1.WhenAlways
	for _, h := range n.Heartbeats {
		urls, err := b.all(ctx, h.Start, h.Success, h.Failure)
		if err != nil {
			failed = errors.Join(failed, fault.Wrap("heartbeat", nil, err, ""))
			continue
		}
		told.Heartbeats = append(told.Heartbeats, notify.Heartbeat{Start: urls[0], Success: urls[1], Failure: urls[2]})
	}
	for _, m := range n.Messages {
		channel, err := b.channel(ctx, client, m)
		if err != nil {
			failed = errors.Join(failed, fault.Wrap("messages", nil, err, ""))
			continue
		}
		told.Channels = append(told.Channels, channel)
	}
	return told, failed
}

// known is what a declaration shows and a log need not: who knows the topic of ntfy reads it.
func (b *builder) known(address string) fault.Secret {
	b.secrets.Add(fault.Secret(address))
	return fault.Secret(address)
}

// channel makes one channel of messages.
func (b *builder) channel(ctx context.Context, client *notify.Client, c v1alpha1.Channel) (notify.Channel, error) {
	switch {
	case c.Ntfy != nil:
		secrets, err := b.all(ctx, c.Ntfy.Token, c.Ntfy.Password)
		if err != nil {
			return nil, err
		}
		return notify.Ntfy{
			Client: client, URL: b.known(c.Ntfy.URL), Token: secrets[0], Username: c.Ntfy.Username, Password: secrets[1], Email: c.Ntfy.Email,
		}, nil
	case c.Gotify != nil:
		token, err := b.secret(ctx, c.Gotify.Token)
		return notify.Gotify{Client: client, URL: b.known(c.Gotify.URL), Token: token}, err
	case c.Apprise != nil:
		services := make([]*v1alpha1.Secret, len(c.Apprise.URLs))
		for i := range c.Apprise.URLs {
			services[i] = &c.Apprise.URLs[i]
		}
		urls, err := b.all(ctx, services...)
		return notify.Apprise{
			Client: client, URL: b.known(c.Apprise.URL), Config: b.known(c.Apprise.Config), Tags: c.Apprise.Tags, URLs: urls,
		}, err
	case c.Slack != nil:
		url, err := b.secret(ctx, c.Slack)
		return notify.Slack{Client: client, URL: url}, err
	case c.Webhook != nil:
		url, err := b.secret(ctx, c.Webhook)
		return notify.Webhook{Client: client, URL: url}, err
	case c.Email != nil:
		password, err := b.secret(ctx, c.Email.Password)
		return notify.Email{
			Server: c.Email.Server, From: c.Email.From, To: c.Email.To, Username: c.Email.Username, Password: password,
		}, err
	}
	return nil, fault.New("", fault.ErrInvalid, "it names no service", "")
}
