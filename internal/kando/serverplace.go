package kando

import (
	"context"
	"errors"
	"path"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/vault"
)

// looseStreams is the directory of streams whose path names none.
const looseStreams = "/kanister-backups"

// serverPlace is the place of a profile that leads to a kopia API server.
type serverPlace struct{ account vault.Account }

func newServerPlace(d *Document) (place, error) {
	const op = "open profile of a kopia server"
	k := d.Credential.KopiaServerSecret
	switch {
	case k == nil:
		return nil, fault.New(op, fault.ErrInvalid, "it has no kopiaServerSecret", "")
	case d.Location.Endpoint == "":
		return nil, fault.New(op, fault.ErrInvalid, "its location has no endpoint", "")
	}
	return &serverPlace{vault.Account{
		URL: d.Location.Endpoint, Certificate: k.Cert, Username: k.Username, Hostname: k.Hostname, Password: fault.Secret(k.Password),
	}}, nil
}

func (p *serverPlace) with(ctx context.Context, readOnly bool, do func(*vault.Server) error) error {
	var s *vault.Server
	err := again(ctx, requestTime, func(ctx context.Context) (err error) {
		s, err = vault.OpenServer(context.WithoutCancel(ctx), p.account, readOnly) // which keeps its context
		return err
	})
	if err != nil {
		return err
	}
	err = do(s)
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return errors.Join(err, s.Close(tidy))
}

func (p *serverPlace) push(ctx context.Context, from *source, name string) (made *snapshot, err error) {
	err = p.with(ctx, false, func(s *vault.Server) error {
		var pushed vault.Pushed
		if from.name == standard {
			dir := path.Dir(name)
			if dir == "." || dir == "/" {
				dir = looseStreams
			}
			pushed, err = s.PushStream(ctx, dir, path.Base(name), from.read)
		} else {
			pushed, err = s.PushPath(ctx, from.name)
		}
		made = &snapshot{ID: pushed.ID, LogicalSize: pushed.Bytes, PhysicalSize: pushed.NewBytes}
		return err
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

func (p *serverPlace) pull(ctx context.Context, to *target, name, id string) error {
	if err := needed(id); err != nil {
		return err
	}
	return p.with(ctx, true, func(s *vault.Server) error {
		r, isDir, err := s.Snapshot(ctx, id)
		switch {
		case err != nil:
			return err
		case !isDir:
			return writeFile(ctx, r, ".", to)
		case to.stream():
			return writeFile(ctx, r, path.Base(name), to)
		}
		return fault.Wrap("pull to "+to.name, nil, vault.RestoreTreeOver(ctx, r, to.name), "")
	})
}

func (p *serverPlace) delete(ctx context.Context, _, id string) error {
	if err := needed(id); err != nil {
		return err
	}
	return p.with(ctx, false, func(s *vault.Server) error {
		if err := s.Delete(ctx, id); !errors.Is(err, fault.ErrNotFound) {
			return err
		}
		return nil
	})
}
