package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	postsKey = "posts" // a list of JSON, the newest first
	maxPosts = 100
)

// post is one entry of the blog.
type post struct {
	Title   string    `json:"title"`
	Text    string    `json:"text"`
	At      time.Time `json:"at"`
	Replica string    `json:"replica"` // which took it in
}

// posts are the blog's entries, kept in Redis.
type posts struct{ db *redis.Client }

// openPosts does not connect yet: the first request does, and so does each that
// finds the connection lost.
func openPosts(addr string) *posts {
	return &posts{redis.NewClient(&redis.Options{
		Addr:                     addr,
		DialTimeout:              time.Second,
		ReadTimeout:              time.Second,
		WriteTimeout:             time.Second,
		ContextTimeoutEnabled:    true,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})}
}

func (p *posts) Close() error { return p.db.Close() }

// ping reports whether the database answers.
func (p *posts) ping(ctx context.Context) error { return p.db.Ping(ctx).Err() }

func (p *posts) add(ctx context.Context, one post) error {
	data, err := json.Marshal(one)
	if err != nil {
		return fmt.Errorf("encode post: %w", err)
	}
	_, err = p.db.TxPipelined(ctx, func(tx redis.Pipeliner) error {
		tx.LPush(ctx, postsKey, data)
		tx.LTrim(ctx, postsKey, 0, maxPosts-1)
		return nil
	})
	if err != nil {
		return fmt.Errorf("store post: %w", err)
	}
	return nil
}

// list returns the posts, the newest first.
func (p *posts) list(ctx context.Context) ([]post, error) {
	items, err := p.db.LRange(ctx, postsKey, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("read posts: %w", err)
	}
	list := make([]post, len(items))
	for i, item := range items {
		if err := json.Unmarshal([]byte(item), &list[i]); err != nil {
			return nil, fmt.Errorf("decode post: %w", err)
		}
	}
	return list, nil
}
