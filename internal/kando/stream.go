package kando

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/vault"
)

type streamOptions struct{ password, config, dir, file string }

func newStreamCommand(t *tool) *cobra.Command {
	var o streamOptions
	push := &cobra.Command{
		Use:     "push <source>",
		Short:   "Push what a URL answers into the kopia repository that is connected",
		Example: `  KOPIA_PASSWORD=… kando stream push --dirPath /mnt/data --filePath disk.img http://127.0.0.1:8080/disk`,
		Args:    exactly(1),
		RunE:    run(func(ctx context.Context, args []string) error { return t.pushURL(ctx, o, args[0]) }),
	}
	push.Flags().StringVarP(&o.dir, "dirPath", "d", "", "root `DIR` of the snapshot")
	push.Flags().StringVarP(&o.file, "filePath", "f", "", "`PATH` of the file below it")
	cmd := group("stream", "Push data streams", push)
	cmd.PersistentFlags().StringVarP(&o.password, "password", "p", "", "`PASSWORD` of the repository (default $KOPIA_PASSWORD)")
	cmd.PersistentFlags().StringVarP(&o.config, "config-file", "c", "", "kopia's configuration `FILE` (default ~/.config/kopia/repository.config)")
	return cmd
}

func (t *tool) pushURL(ctx context.Context, o streamOptions, source string) error {
	password := firstOf(o.password, t.Getenv("KOPIA_PASSWORD"))
	if password == "" || o.dir == "" || below(o.file) == "" {
		return fault.New("flags", fault.ErrInvalid, "--password, --dirPath and --filePath must be given", "")
	}
	body, err := get(ctx, source)
	if err != nil {
		return fault.Wrap("read source", nil, err, "")
	}
	defer body.Body.Close()
	config := o.config
	if config == "" {
		config = filepath.Join(t.Getenv("HOME"), ".config", "kopia", "repository.config")
	}
	s, err := vault.OpenConfigured(ctx, config, fault.Secret(password))
	if err != nil {
		return err
	}
	_, err = s.PushStream(ctx, path.Clean(o.dir), below(o.file), checked{ctx, body.Body, "read source"})
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return errors.Join(err, s.Close(tidy))
}

// get asks for a URL, which errors do not repeat: it may hold a password.
func get(ctx context.Context, source string) (*http.Response, error) {
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fault.New("", fault.ErrInvalid, "it is not of the form http://HOST/PATH", "")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, fault.New("", fault.ErrInvalid, "it is not of the form http://HOST/PATH", "")
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, networkFault(err)
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close() // of an error
		return nil, statusFault(answer.StatusCode, fmt.Errorf("the server answers %d", answer.StatusCode))
	}
	return answer, nil
}
