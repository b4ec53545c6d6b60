package policy

import (
	"errors"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/fault"
)

func TestParseDuration(t *testing.T) {
	cases := []struct {
		text string
		want Duration
		ok   bool
	}{
		{"1y2m3w4d5h", Duration{1, 2, 3, 4, 5}, true},
		{"30d", Duration{Days: 30}, true},
		{"007d", Duration{Days: 7}, true},
		{"2y12h", Duration{Years: 2, Hours: 12}, true},
		{"0h", Duration{}, true},
		{"", Duration{}, false},
		{"d", Duration{}, false},
		{"3", Duration{}, false},
		{"3x", Duration{}, false},
		{"1d1d", Duration{}, false},
		{"1h1d", Duration{}, false},
		{"-1d", Duration{}, false},
		{"1 d", Duration{}, false},
		{"1.5d", Duration{}, false},
		{"100000d", Duration{}, false},
		{"٣d", Duration{}, false},
	}
	for _, c := range cases {
		got, err := ParseDuration(c.text)
		if got != c.want || (err == nil) != c.ok || (err != nil && !errors.Is(err, fault.ErrInvalid)) {
			t.Errorf("ParseDuration(%q) = %+v, %v", c.text, got, err)
		}
	}
}

func TestDurationBefore(t *testing.T) {
	cases := []struct{ span, from, want string }{
		{"1m", "2026-03-31", "2026-02-28"},
		{"1y", "2024-02-29", "2023-02-28"},
		{"1m", "2026-03-15", "2026-02-15"},
		{"1y1m1w1d24h", "2026-03-15", "2025-02-06"},
		{"0h", "2026-03-15", "2026-03-15"},
	}
	for _, c := range cases {
		d, err := ParseDuration(c.span)
		if err != nil {
			t.Fatal(err)
		}
		from, err := time.Parse(time.DateOnly, c.from)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Before(from).Format(time.DateOnly); got != c.want {
			t.Errorf("%s before %s = %s, want %s", c.span, c.from, got, c.want)
		}
	}
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"1y2m3w4d5h", "30d", "0h", "", "1h1d", "99999y", "-1d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		again, err := ParseDuration(d.String())
		if err != nil || again != d {
			t.Errorf("%q is %+v, written %q, read back as %+v, %v", s, d, d.String(), again, err)
		}
		if d.Before(now).After(now) {
			t.Errorf("%q reaches into the future", s)
		}
	})
}
