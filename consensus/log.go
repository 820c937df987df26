package consensus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// hclogger writes what Raft and its log store say to a slog.Logger. Their
// levels are kept, but for trace, which is debug here. A warning about the same
// peer comes at that level once in a while and as debug in between: Raft repeats
// them several times a second for as long as a node is dead.
type hclogger struct {
	log  *slog.Logger
	name string
	said *said
}

func newHCLog(log *slog.Logger) *hclogger {
	return &hclogger{log: log, said: &said{last: map[string]time.Time{}}}
}

// said remembers when warnings were last given.
type said struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const repeatWarning = 30 * time.Second

// lately reports whether the warning was given within repeatWarning, and
// remembers it if not.
func (s *said) lately(msg string, args []any) bool {
	for i := 0; i+1 < len(args); i += 2 {
		switch args[i] {
		case "peer", "server-id", "server-address", "target":
			msg += fmt.Sprint(" ", args[i+1])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Sub(s.last[msg]) < repeatWarning {
		return true
	}
	if len(s.last) > 1000 { // never, with a handful of peers
		clear(s.last)
	}
	s.last[msg] = now
	return false
}

// formatted prints the arguments that hclog would print by a format of theirs.
func formatted(args []any) []any {
	out := slices.Clone(args)
	for i, arg := range out {
		if f, ok := arg.(hclog.Format); ok && len(f) > 0 {
			out[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	return out
}

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
	to := level(l)
	if to >= slog.LevelWarn && h.said.lately(msg, args) {
		to = slog.LevelDebug
	}
	h.log.Log(context.Background(), to, "raft: "+msg, formatted(args)...)
}

func (h *hclogger) Trace(msg string, args ...any) { h.Log(hclog.Trace, msg, args...) }
func (h *hclogger) Debug(msg string, args ...any) { h.Log(hclog.Debug, msg, args...) }
func (h *hclogger) Info(msg string, args ...any)  { h.Log(hclog.Info, msg, args...) }
func (h *hclogger) Warn(msg string, args ...any)  { h.Log(hclog.Warn, msg, args...) }
func (h *hclogger) Error(msg string, args ...any) { h.Log(hclog.Error, msg, args...) }

func (h *hclogger) IsTrace() bool { return false }
func (h *hclogger) IsDebug() bool { return h.enabled(slog.LevelDebug) }
func (h *hclogger) IsInfo() bool  { return h.enabled(slog.LevelInfo) }
func (h *hclogger) IsWarn() bool  { return h.enabled(slog.LevelWarn) }
func (h *hclogger) IsError() bool { return h.enabled(slog.LevelError) }

func (h *hclogger) ImpliedArgs() []any { return nil }
func (h *hclogger) Name() string       { return h.name }

func (h *hclogger) With(args ...any) hclog.Logger {
	return &hclogger{log: h.log.With(args...), name: h.name, said: h.said}
}

func (h *hclogger) Named(name string) hclog.Logger { return h.ResetNamed(name) }
func (h *hclogger) ResetNamed(name string) hclog.Logger {
	return &hclogger{log: h.log, name: name, said: h.said}
}

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
