package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/schedule"
)

// story is what a loop told and its jobs did, in order, each with the seconds since the start.
type story struct {
	mu    sync.Mutex
	began time.Time
	lines []string
}

func (s *story) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf("%v ", time.Since(s.began))+fmt.Sprintf(format, args...))
}

// tell notes every event but the times of next runs.
func (s *story) tell(e schedule.Event) {
	switch e.Kind {
	case schedule.Loaded:
		s.add("loaded %d", e.Jobs)
	case schedule.Rejected:
		s.add("rejected: %v", e.Err)
	case schedule.Skipped:
		s.add("%s skipped", e.Job)
	case schedule.Started:
		s.add("%s started", e.Job)
	case schedule.Ended:
		s.add("%s ended: %v", e.Job, e.Err)
	case schedule.Scheduled:
	}
}

func (s *story) check(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.lines, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(s.lines, "\n  "), strings.Join(want, "\n  "))
	}
}

// every is a schedule with a time at each multiple of d.
func every(d time.Duration) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return t.Truncate(d).Add(d) }
}

// takes is a run of so long.
func takes(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func fixed(jobs ...schedule.Job) func(context.Context) ([]schedule.Job, error) {
	return func(context.Context) ([]schedule.Job, error) { return jobs, nil }
}

// play runs loop for a time of the fake clock, and returns when it has stopped.
func play(t *testing.T, loop *schedule.Loop, span time.Duration) *story {
	t.Helper()
	s := &story{began: time.Now()}
	loop.Tell = s.tell
	if loop.Now == nil {
		loop.Now = time.Now
	}
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	if err := loop.Run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
	return s
}

func TestJobsRunAtTheirTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, &schedule.Loop{Parallel: 2, Load: fixed(
			schedule.Job{Name: "hourly", Next: every(time.Hour), Run: takes(time.Minute)},
			schedule.Job{Name: "once", Run: takes(time.Second)},
		)}, 150*time.Minute)
		s.check(
			t,
			"0s loaded 2",
			"0s once started", "1s once ended: <nil>",
			"1h0m0s hourly started", "1h1m0s hourly ended: <nil>",
			"2h0m0s hourly started", "2h1m0s hourly ended: <nil>",
		)
	})
}

func TestAJobNeverOverlapsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, &schedule.Loop{Parallel: 5, Load: fixed(
			schedule.Job{Name: "slow", Next: every(time.Hour), Run: takes(130 * time.Minute)},
		)}, 4*time.Hour+time.Second)
		s.check(
			t,
			"0s loaded 1",
			"1h0m0s slow started",
			"2h0m0s slow skipped",
			"3h0m0s slow skipped",
			"3h10m0s slow ended: <nil>",
			"4h0m0s slow started",
			"4h0m1s slow ended: context deadline exceeded",
		)
	})
}

func TestJobsAtOnceAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := play(t, &schedule.Loop{Load: fixed(
			schedule.Job{Name: "often", Next: every(time.Minute), Run: takes(100 * time.Second)},
			schedule.Job{Name: "rare", Next: every(2 * time.Minute), Run: takes(10 * time.Second)},
		)}, 295*time.Second)
		s.check(
			t,
			"0s loaded 2",
			"1m0s often started",
			"2m0s often skipped",
			"2m40s often ended: <nil>",
			"2m40s rare started", // though often is due again before rare ends
			"2m50s rare ended: <nil>",
			"3m0s often started",
			"4m0s often skipped",
			"4m40s often ended: <nil>",
			"4m40s rare started",
			"4m50s rare ended: <nil>",
		)
	})
}

func TestStoppingEndsRunsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finished := false
		s := play(t, &schedule.Loop{Load: fixed(
			schedule.Job{Name: "stubborn", Run: func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Minute) // to publish what it has
				finished = true
				return nil
			}},
			schedule.Job{Name: "next", Run: takes(0)},
		)}, time.Second)
		s.check(t, "0s loaded 2", "0s stubborn started", "1m1s stubborn ended: <nil>")
		if !finished {
			t.Error("the loop ended before its job")
		}
	})
}

// A configuration with a slip in it must not end a process that keeps backups (nor the schedule it had).
func TestAWrongConfigurationLeavesTheRunningOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		run := takes(0)
		s := play(t, &schedule.Loop{Load: func(context.Context) ([]schedule.Job, error) {
			switch hours := time.Since(began).Hours(); {
			case hours < 1.5:
				return []schedule.Job{{Name: "a", Key: "1", Next: every(time.Hour), Run: run}}, nil
			case hours < 2.2:
				return nil, errors.New("line 3: unexpected colon")
			case hours < 3.5:
				return nil, errors.New("line 4: unexpected dash")
			case hours < 3.8:
				return []schedule.Job{{Name: "a", Key: "1", Next: every(time.Hour), Run: run}}, nil
			default:
				return nil, errors.New("line 4: unexpected dash")
			}
		}}, 4*time.Hour+time.Second)
		s.check(
			t,
			"0s loaded 1",
			"1h0m0s a started", "1h0m0s a ended: <nil>",
			"1h30m0s rejected: line 3: unexpected colon",
			"2h0m0s a started", "2h0m0s a ended: <nil>",
			"2h12m0s rejected: line 4: unexpected dash",
			"3h0m0s a started", "3h0m0s a ended: <nil>",
			"3h30m0s loaded 1",
			"3h48m0s rejected: line 4: unexpected dash",
			"4h0m0s a started", "4h0m0s a ended: <nil>",
		)
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reload := make(chan struct{})
		jobs := []schedule.Job{
			{Name: "same", Key: "1", Next: after(40 * time.Minute), Run: takes(0)},
			{Name: "gone", Key: "1", Next: after(29 * time.Minute), Run: takes(10 * time.Minute)},
			{Name: "changed", Key: "1", Next: after(35 * time.Minute), Run: takes(0)},
		}
		var mu sync.Mutex
		load := func(context.Context) ([]schedule.Job, error) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(jobs), nil
		}
		go func() {
			time.Sleep(30 * time.Minute)
			mu.Lock()
			jobs = []schedule.Job{
				jobs[0],
				{Name: "changed", Key: "2", Next: after(35 * time.Minute), Run: takes(0)},
				{Name: "new", Run: takes(0)},
			}
			mu.Unlock()
			reload <- struct{}{}
		}()
		s := play(t, &schedule.Loop{Load: load, Reload: reload, Poll: 24 * time.Hour, Parallel: 3}, 70*time.Minute)
		s.check(
			t,
			"0s loaded 3",
			"29m0s gone started",
			"30m0s loaded 3",
			"30m0s new started", "30m0s new ended: <nil>",
			"39m0s gone ended: <nil>", // in peace
			"40m0s same started", "40m0s same ended: <nil>",
			"1h5m0s changed started", "1h5m0s changed ended: <nil>",
		)
	})
}

func TestAReloadDuringALoadIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reload := make(chan struct{})
		began, loads := time.Now(), 0
		load := func(context.Context) ([]schedule.Job, error) {
			loads++
			read := time.Since(began) // and then it is read for long
			if loads == 2 {
				time.Sleep(10 * time.Minute)
			}
			if read < 5*time.Minute {
				return nil, nil
			}
			return []schedule.Job{{Name: "new", Run: takes(0)}}, nil
		}
		go func() {
			time.Sleep(time.Minute)
			reload <- struct{}{}
			time.Sleep(5 * time.Minute)
			reload <- struct{}{}
		}()
		s := play(t, &schedule.Loop{Load: load, Reload: reload, Poll: 24 * time.Hour}, time.Hour)
		s.check(t, "0s loaded 0", "11m0s loaded 1", "11m0s new started", "11m0s new ended: <nil>")
	})
}

// after is a schedule that counts from when it is asked.
func after(d time.Duration) func(time.Time) time.Time {
	return func(t time.Time) time.Time { return t.Add(d) }
}

func TestAConfigurationThatTakesLongDelaysNoJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		s := play(t, &schedule.Loop{Load: func(ctx context.Context) ([]schedule.Job, error) {
			if !first {
				<-ctx.Done() // a file system that hangs
			}
			first = false
			return []schedule.Job{{Name: "a", Next: every(time.Hour), Run: takes(0)}}, nil
		}}, 61*time.Minute)
		s.check(t, "0s loaded 1", "1h0m0s a started", "1h0m0s a ended: <nil>")
	})
}

func TestMissedTimesAreMadeUpForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		// The machine sleeps from 00:30 to 05:30: timers do not notice, the wall clock does.
		clock := func() time.Time {
			now := time.Now()
			if now.Sub(began) >= 30*time.Minute {
				now = now.Add(5 * time.Hour)
			}
			return now
		}
		s := play(t, &schedule.Loop{Now: clock, Load: fixed(
			schedule.Job{Name: "a", Next: every(time.Hour), Run: takes(0)},
		)}, 65*time.Minute)
		s.check(t, "0s loaded 1", "30m0s a started", "30m0s a ended: <nil>", "1h0m0s a started", "1h0m0s a ended: <nil>")
	})
}

func TestAClockSetBackStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		clock := func() time.Time { // starts ten years ahead
			now := time.Now()
			if now.Sub(began) < 30*time.Minute {
				now = now.AddDate(10, 0, 0)
			}
			return now
		}
		s := play(t, &schedule.Loop{Now: clock, Load: fixed(
			schedule.Job{Name: "a", Next: every(time.Hour), Run: takes(0)},
		)}, 65*time.Minute)
		s.check(t, "0s loaded 1", "1h0m0s a started", "1h0m0s a ended: <nil>")
	})
}

func TestAClockCorrectedBySecondsRunsNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		clock := func() time.Time {
			now := time.Now()
			if now.Sub(began) > time.Hour {
				now = now.Add(-10 * time.Second)
			}
			return now
		}
		s := play(t, &schedule.Loop{Now: clock, Load: fixed(
			schedule.Job{Name: "a", Next: every(time.Hour), Run: takes(0)},
		)}, 65*time.Minute)
		s.check(t, "0s loaded 1", "1h0m0s a started", "1h0m0s a ended: <nil>")
	})
}

func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Duration
		began := time.Now()
		play(t, &schedule.Loop{Load: fixed(schedule.Job{
			Name: "a", Next: every(time.Hour), Jitter: 30 * time.Minute,
			Run: func(context.Context) error { starts = append(starts, time.Since(began)); return nil },
		})}, 20*time.Hour+30*time.Minute)
		if len(starts) != 20 {
			t.Fatalf("%d runs in 20 hours", len(starts))
		}
		spread := map[time.Duration]bool{}
		for i, start := range starts {
			late := start - time.Duration(i+1)*time.Hour
			if late < 0 || late >= 30*time.Minute {
				t.Errorf("run %d starts at %v", i, start)
			}
			spread[late] = true
		}
		if len(spread) < 10 {
			t.Errorf("only %d different spans", len(spread))
		}
	})
}

func TestTheNextTimesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var got []string
		loop := &schedule.Loop{
			Now: time.Now,
			Load: func(context.Context) ([]schedule.Job, error) {
				if time.Since(began) > 90*time.Minute {
					return nil, nil
				}
				return []schedule.Job{{Name: "a", Next: every(time.Hour), Run: takes(0)}}, nil
			},
			Tell: func(e schedule.Event) {
				switch {
				case e.Kind == schedule.Scheduled && e.Time.IsZero():
					got = append(got, "never")
				case e.Kind == schedule.Scheduled:
					got = append(got, e.Time.Sub(began).String())
				}
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if err := loop.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if want := []string{"1h0m0s", "2h0m0s", "never"}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestTheFirstConfigurationMustBeRight(t *testing.T) {
	tests := []struct {
		name string
		load func(context.Context) ([]schedule.Job, error)
		want error
	}{
		{"wrong", func(context.Context) ([]schedule.Job, error) { return nil, fault.ErrInvalid }, fault.ErrInvalid},
		{"one name twice", fixed(schedule.Job{Name: "a"}, schedule.Job{Name: "a"}), fault.ErrInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			loop := &schedule.Loop{Load: test.load, Now: time.Now}
			if err := loop.Run(t.Context()); !errors.Is(err, test.want) {
				t.Errorf("Run: %v, want %v", err, test.want)
			}
			if err := loop.Once(t.Context()); !errors.Is(err, test.want) {
				t.Errorf("Once: %v, want %v", err, test.want)
			}
		})
	}
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &story{began: time.Now()}
		loop := &schedule.Loop{Now: time.Now, Tell: s.tell, Load: fixed(
			schedule.Job{Name: "a", Next: every(time.Hour), Run: takes(time.Minute)},
			schedule.Job{Name: "b", Run: func(context.Context) error { return fault.ErrIncomplete }},
			schedule.Job{Name: "c", Run: func(context.Context) error { return fault.ErrDenied }},
		)}
		err := loop.Once(t.Context())
		if !errors.Is(err, fault.ErrIncomplete) || !errors.Is(err, fault.ErrDenied) || err.Error() != "b: incomplete\nc: access denied" {
			t.Errorf("got %v", err)
		}
		s.check(
			t,
			"0s a started", "1m0s a ended: <nil>",
			"1m0s b started", "1m0s b ended: incomplete",
			"1m0s c started", "1m0s c ended: access denied",
		)
	})
}

func TestOnceInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := false
		loop := &schedule.Loop{Now: time.Now, Load: fixed(
			schedule.Job{Name: "a", Run: takes(time.Hour)},
			schedule.Job{Name: "b", Run: func(context.Context) error { ran = true; return nil }},
		)}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if err := loop.Once(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "b: ") {
			t.Errorf("got %v", err)
		}
		if ran {
			t.Error("a job was started after the interruption")
		}
	})
}
