package forge

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestSend(t *testing.T) {
	content := strings.Repeat("0123456789", 1000)
	for name, field := range map[string]string{"bytes alone": "", "in a form": "file"} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tries++; tries == 1 {
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				var body io.Reader = r.Body
				if field != "" {
					f, header, err := r.FormFile(field)
					if err != nil || header.Filename != "a \"b\".txt" {
						t.Errorf("form with %+v, %v", header, err)
						return
					}
					body = f
				}
				got, err := io.ReadAll(body)
				if err != nil || string(got) != content {
					t.Errorf("%d bytes came, %v", len(got), err)
				}
				if r.ContentLength < int64(len(content)) || r.Header.Get("Authorization") != "Bearer s" {
					t.Errorf("length %d, %v", r.ContentLength, r.Header)
				}
				io.WriteString(w, `{"url":"/uploads/1"}`)
			}))
			defer server.Close()
			c, err := NewClient(ClientOptions{
				Base: server.URL, Sleep: func(context.Context, time.Duration) error { return nil },
				Authorize: func(_ context.Context, h http.Header) error { h.Set("Authorization", "Bearer s"); return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			var into struct{ URL string }
			err = c.Send(t.Context(), http.MethodPost, "/uploads", nil,
				Upload{Name: "a \"b\".txt", Size: int64(len(content)), Field: field, Body: strings.NewReader(content)}, &into)
			if err != nil || into.URL != "/uploads/1" || tries != 2 {
				t.Errorf("got %+v, %v after %d tries", into, err, tries)
			}
		})
	}
}
