package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// maxForm bounds what a form may send, bytes.
const maxForm = 64 << 10

type site struct {
	posts   *posts
	replica string // the container's hostname
	version string
	log     *slog.Logger
}

func (s *site) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.showPosts)
	mux.HandleFunc("POST /posts", s.addPost)
	mux.HandleFunc("GET /health", s.health)
	mux.HandleFunc("GET /whoami", s.whoami)
	return mux
}

// identity says who answers, and whom it sees asking.
type identity struct {
	Replica string `json:"replica"`
	Version string `json:"version"`
	// Client is the address at the other end of the TCP connection, as the
	// socket has it: no header is looked at.
	Client string `json:"client"`
	PID    int    `json:"pid"`
}

func (s *site) identity(r *http.Request) identity {
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	return identity{Replica: s.replica, Version: s.version, Client: client, PID: os.Getpid()}
}

func (s *site) whoami(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(s.identity(r)); err != nil {
		s.log.Debug("answer not sent", "err", err)
	}
}

// health is 200 only while the database answers: without it, this replica has
// nothing to show.
func (s *site) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := s.posts.ping(ctx); err != nil {
		http.Error(w, "database: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n"))
}

func (s *site) showPosts(w http.ResponseWriter, r *http.Request) {
	list, err := s.posts.list(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	err = page.Execute(w, struct {
		identity
		Posts []post
	}{s.identity(r), list})
	if err != nil {
		s.log.Debug("page not sent", "err", err)
	}
}

func (s *site) addPost(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	one := post{
		Title:   strings.TrimSpace(r.FormValue("title")),
		Text:    strings.TrimSpace(r.FormValue("text")),
		At:      time.Now().UTC(),
		Replica: s.replica,
	}
	if one.Title == "" {
		http.Error(w, "a post needs a title", http.StatusBadRequest)
		return
	}
	if err := s.posts.add(r.Context(), one); err != nil {
		s.fail(w, err)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *site) fail(w http.ResponseWriter, err error) {
	s.log.Error("request not served", "err", err)
	http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
}
