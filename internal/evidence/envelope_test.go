package evidence

import "testing"

// TestPreAuth is the example of DSSE's specification.
func TestPreAuth(t *testing.T) {
	got := string(preAuth("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
