package config_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/config"
	"github.com/backstay/backstay/internal/fault"
)

func TestResolve(t *testing.T) {
	dir := write(t, map[string]string{"token": "hunter22\n", "windows": "hunter22\r\n", "key": "line 1\nline 2\n", "empty": "\n", "zero": "a\x00b", "large": strings.Repeat("x", 2<<20)})
	if err := os.WriteFile(filepath.Join(dir, "open"), []byte("hunter22"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o644); err != nil {
		t.Fatal(err)
	}
	var warned []string
	lookups := config.Lookups{
		Home: dir,
		Env: func(name string) (string, bool) {
			value, found := map[string]string{"TOKEN": "hunter22", "EMPTY": ""}[name]
			return value, found
		},
		Run: func(_ context.Context, command string) ([]byte, error) {
			if command == "pass show" {
				return []byte("hunter22\n"), nil
			}
			return []byte("hunter22"), fault.New("run", fault.ErrDenied, "exit status 1", "")
		},
		Warn: func(message string) { warned = append(warned, message) },
	}
	file := func(name string) v1alpha1.Secret { return v1alpha1.Secret{File: filepath.Join(dir, name)} }
	tests := []struct {
		name   string
		secret v1alpha1.Secret
		want   string
		class  error
		says   string
	}{
		{"env", v1alpha1.Secret{Env: "TOKEN"}, "hunter22", nil, ""},
		{"env not set", v1alpha1.Secret{Env: "OTHER"}, "", fault.ErrInvalid, "the environment variable OTHER: it is not set"},
		{"env empty", v1alpha1.Secret{Env: "EMPTY"}, "", fault.ErrInvalid, "the environment variable EMPTY: it is empty"},
		{"file", file("token"), "hunter22", nil, ""},
		{"file at home", v1alpha1.Secret{File: "~/token"}, "hunter22", nil, ""},
		{"file of Windows", file("windows"), "hunter22", nil, ""},
		{"file of lines", file("key"), "line 1\nline 2", nil, ""},
		{"file empty", file("empty"), "", fault.ErrInvalid, "it is empty"},
		{"file with a zero", file("zero"), "", fault.ErrInvalid, "zero byte"},
		{"file too large", file("large"), "", fault.ErrInvalid, "larger than 1 MiB"},
		{"file absent", file("absent"), "", fault.ErrNotFound, "absent: no such file"},
		{"directory", v1alpha1.Secret{File: dir}, "", fault.ErrInvalid, "not a file"},
		{"open file", file("open"), "hunter22", nil, ""},
		{"command", v1alpha1.Secret{Command: "pass show"}, "hunter22", nil, ""},
		{"command fails", v1alpha1.Secret{Command: "pass hide"}, "", fault.ErrDenied, "what a command prints: run: exit status 1"},
		{"off a cluster", v1alpha1.Secret{SecretKeyRef: &v1alpha1.SecretKeyRef{Name: "forge", Key: "token"}}, "", fault.ErrUnsupported, "the Secret forge, key token"},
		{"value", v1alpha1.Secret{Value: "hunter22"}, "hunter22", nil, ""},
		{"nothing", v1alpha1.Secret{}, "", fault.ErrInvalid, "it is empty"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := config.Resolve(t.Context(), test.secret, lookups)
			if got.Reveal() != test.want || !errors.Is(err, test.class) {
				t.Errorf("%q, %v", got.Reveal(), err)
			}
			if err != nil && (!strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "hunter22")) {
				t.Errorf("%v", err)
			}
		})
	}
	if len(warned) != 1 || !strings.Contains(warned[0], "open holds a secret") {
		t.Errorf("%q", warned)
	}
}
