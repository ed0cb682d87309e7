package post

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// Each POST promises to end within its time, before it connects.
func TestAlive(t *testing.T) {
	e := at(t, "http://127.0.0.1:1/", "")
	var promised time.Duration
	e.Alive = func(within time.Duration) { promised = within }
	e.Dial = func(context.Context, string, string) (net.Conn, error) {
		if promised != 90*time.Second {
			t.Errorf("the POST promises to end within %v, want 90s", promised)
		}
		promised = 0
		return nil, errors.New("down")
	}
	for range 2 {
		e.Post(t.Context(), 90*time.Second, "", nil)
	}
}
