package cli

import (
	"io"
	"log/slog"
	"path/filepath"

	"github.com/backstay/backstay/internal/forge"
	"github.com/backstay/backstay/internal/notify"
	"github.com/backstay/backstay/internal/point"
)

// newDaemon makes a daemon without anything to do yet.
func (a *app) newDaemon(o processOptions) (*daemon, error) {
	d := &daemon{app: a, o: o, secrets: &notify.Secrets{}, metrics: notify.NewMetrics(a.Version)}
	var lines []io.Writer
	if !o.silent {
		lines = append(lines, a.Stderr)
	}
	if o.logFile != "" {
		now := a.Clock()
		var err error
		d.logFile, err = notify.OpenLogFile(notify.LogFileOptions{
			Dir: filepath.Dir(o.logFile), Name: filepath.Base(o.logFile), MaxAge: now.Sub(o.logMaxAge.Before(now)), Now: a.Clock,
		})
		if err != nil {
			return nil, err
		}
		lines = append(lines, d.logFile)
	}
	level := o.level
	if a.global.quiet || a.global.json {
		level = slog.LevelWarn
	}
	d.log = notify.NewLogger(io.MultiWriter(lines...), notify.LogOptions{
		JSON: a.told.json, Level: level, TimeFormat: o.timeFormat, Secrets: d.secrets,
	})
	d.builder = &builder{
		app: a, secrets: d.secrets, budget: &forge.Budget{}, observe: func(point.Event) {}, warn: func(message string) { tell(d.log, slog.LevelWarn, message) },
	}
	if dir := a.cacheDir(); dir != "" {
		var err error
		if d.builder.cache, err = forge.NewCache(dir, maxCache); err != nil {
			d.log.Warn("answers of forges are not kept", "error", err.Error())
		}
	}
	return d, nil
}

// progress logs how far a run is, now and then.
func (d *daemon) progress(log *slog.Logger) point.Observer {
	p := &progress{clock: d.app.Clock, last: d.app.Clock(), line: func(text string, e point.Event) {
		var attributes []any
		if d.app.told.json {
			attributes = []any{"part", e.Part, "done", e.Done, "total", e.Total, "unit", e.Unit}
		}
		tell(log, slog.LevelInfo, text, attributes...)
	}}
	return p.show
}

// close ends the log file.
func (d *daemon) close() error {
	if d.logFile == nil {
		return nil
	}
	return d.logFile.Close()
}
