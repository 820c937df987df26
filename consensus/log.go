package consensus

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hclogger writes what Raft and its log store say to a slog.Logger. Their
// levels are kept, but for trace, which is debug here.
type hclogger struct {
	log  *slog.Logger
	name string
}

func newHCLog(log *slog.Logger) *hclogger { return &hclogger{log: log} }

func level(l hclog.Level) slog.Level {
	switch l {
	case hclog.Error:
		return slog.LevelError
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Info:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

func (h *hclogger) enabled(l slog.Level) bool { return h.log.Enabled(context.Background(), l) }

func (h *hclogger) Log(l hclog.Level, msg string, args ...any) {
	h.log.Log(context.Background(), level(l), msg, args...)
}

func (h *hclogger) Trace(msg string, args ...any) { h.log.Debug(msg, args...) }
func (h *hclogger) Debug(msg string, args ...any) { h.log.Debug(msg, args...) }
func (h *hclogger) Info(msg string, args ...any)  { h.log.Info(msg, args...) }
func (h *hclogger) Warn(msg string, args ...any)  { h.log.Warn(msg, args...) }
func (h *hclogger) Error(msg string, args ...any) { h.log.Error(msg, args...) }

func (h *hclogger) IsTrace() bool { return false }
func (h *hclogger) IsDebug() bool { return h.enabled(slog.LevelDebug) }
func (h *hclogger) IsInfo() bool  { return h.enabled(slog.LevelInfo) }
func (h *hclogger) IsWarn() bool  { return h.enabled(slog.LevelWarn) }
func (h *hclogger) IsError() bool { return h.enabled(slog.LevelError) }

func (h *hclogger) ImpliedArgs() []any { return nil }
func (h *hclogger) Name() string       { return h.name }

func (h *hclogger) With(args ...any) hclog.Logger {
	return &hclogger{log: h.log.With(args...), name: h.name}
}

func (h *hclogger) Named(name string) hclog.Logger      { return h.ResetNamed(name) }
func (h *hclogger) ResetNamed(name string) hclog.Logger { return &hclogger{log: h.log, name: name} }

func (h *hclogger) SetLevel(hclog.Level) {} // the slog.Handler decides
func (h *hclogger) GetLevel() hclog.Level {
	if h.IsDebug() {
		return hclog.Debug
	}
	return hclog.Info
}

func (h *hclogger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(h.StandardWriter(o), "", 0)
}

func (h *hclogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lines{h.log} }

// lines logs each write as one message.
type lines struct{ log *slog.Logger }

func (w lines) Write(p []byte) (int, error) {
	w.log.Debug(string(bytes.TrimSpace(p)))
	return len(p), nil
}
