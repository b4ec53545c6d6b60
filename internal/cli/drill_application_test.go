package cli

import (
	"errors"
	"testing"

	"github.com/backstay/backstay/api/v1alpha1"
	"github.com/backstay/backstay/internal/fault"
)

func TestHTTPCheck(t *testing.T) {
	for text, want := range map[string]v1alpha1.HTTPCheck{
		"web":                {Service: "web"},
		"web:80":             {Service: "web", Port: "80"},
		"web:http/health":    {Service: "web", Port: "http", Path: "/health"},
		"web/a:b/c?d=e":      {Service: "web", Path: "/a:b/c?d=e"},
		"/health":            {},
		":80/health":         {},
		"":                   {},
		"web:80/":            {Service: "web", Port: "80", Path: "/"},
		"web:/health?x=1/y=": {Service: "web", Path: "/health?x=1/y="},
	} {
		got, err := httpCheck(text)
		if got != want || errors.Is(err, fault.ErrInvalid) != (want.Service == "") {
			t.Errorf("%q is %+v (%v), want %+v", text, got, err, want)
		}
	}
}
