package forge

import (
	"bufio"
	"context"
	"io"
	"net"
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

// slow is a body that takes a millisecond for a KiB.
type slow struct {
	*strings.Reader
}

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(time.Millisecond)
	return s.Reader.Read(p[:min(len(p), 1<<10)])
}

// A server that answers before it has read the body leaves the transport reading it.
func TestSendAfterAnEarlyAnswer(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	content, answered := strings.Repeat("0123456789", 10_000), make(chan struct{})
	second := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		defer close(answered)
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != content {
			t.Errorf("%d bytes came, %v", len(got), err)
		}
	})}
	go func() {
		early, err := l.Accept()
		if err == nil {
			_, err = http.ReadRequest(bufio.NewReaderSize(early, 16))
		}
		if err == nil {
			io.WriteString(early, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\n{}")
			go func() {
				<-answered
				early.Close()
			}()
			_ = second.Serve(l)
		}
	}()
	defer second.Close()
	c, err := NewClient(ClientOptions{Base: "http://" + l.Addr().String(), Sleep: func(context.Context, time.Duration) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Send(t.Context(), http.MethodPut, "/uploads", nil, Upload{Name: "a", Size: int64(len(content)), Body: slow{strings.NewReader(content)}}, nil)
	if err != nil {
		t.Error(err)
	}
}
