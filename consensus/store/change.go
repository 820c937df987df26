package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/hashicorp/go-memdb"

	"github.com/orch-dev/orch/pkg/api"
)

// ErrConflict is in the chain of every *ConflictError.
var ErrConflict = errors.New("conflict")

// ConflictError says why an entry was not applied: the state was not what its
// changes were made from, or one of them takes what another object has.
type ConflictError struct {
	Ref api.Ref // the object whose change was refused
	// Stored is the object's version, 0 if there is none, and Expected the one
	// that the change named; both 0 if the conflict is about Claim.
	Stored, Expected api.Index
	// Claim is what object Holder has already, for instance "service name web".
	Claim  string
	Holder api.Ref
}

func (e *ConflictError) Error() string {
	switch {
	case e.Claim != "":
		return fmt.Sprintf("%s is taken by %s %s", e.Claim, e.Holder.Kind, e.Holder.ID)
	case e.Expected == 0:
		return fmt.Sprintf("%s exists already", describe(e.Ref))
	case e.Stored == 0:
		return fmt.Sprintf("%s does not exist any more", describe(e.Ref))
	default:
		return fmt.Sprintf("%s was changed meanwhile (version %d, expected %d)", describe(e.Ref), e.Stored, e.Expected)
	}
}

// Unwrap makes the error an ErrConflict, and one for the API.
func (e *ConflictError) Unwrap() []error {
	return []error{ErrConflict, &api.Error{Code: api.CodeConflict, Message: e.Error()}}
}

func describe(r api.Ref) string {
	if r.ID == "" {
		return string(r.Kind)
	}
	return string(r.Kind) + " " + r.ID
}

// change makes changes in txn as one entry and returns them as stored: stamped,
// a deletion with the whole object that was deleted.
func change(txn *memdb.Txn, index api.Index, changes []api.Change) ([]api.Change, error) {
	stored := make([]api.Change, 0, len(changes))
	for _, c := range changes {
		if err := check(c); err != nil {
			return nil, err
		}
		old, err := get(txn, c.Ref())
		if err != nil {
			return nil, err
		}
		var version api.Index
		if old != nil {
			version = meta(*old).Modified
		}
		if want := c.Expected(); want != version {
			return nil, &ConflictError{Ref: c.Ref(), Stored: version, Expected: want}
		}
		if c.Delete {
			if old == nil {
				continue
			}
			if err := txn.Delete(string(c.Ref().Kind), old); err != nil {
				return nil, fmt.Errorf("delete %s: %w", describe(c.Ref()), err)
			}
			gone := *old
			gone.Delete = true
			stored = append(stored, gone)
			continue
		}
		stamp(c, old, index)
		if err := insert(txn, c); err != nil {
			return nil, err
		}
		stored = append(stored, c)
	}
	// Claims are looked at when all changes are made, so that one of them may
	// take what another gives up, in any order.
	for _, c := range stored {
		if err := checkClaims(txn, c); err != nil {
			return nil, err
		}
	}
	return stored, nil
}

// check refuses a change that is not about exactly one object with an ID.
func check(c api.Change) error {
	objects := 0
	for _, set := range []bool{c.Cluster != nil, c.Node != nil, c.Service != nil, c.Task != nil, c.Network != nil, c.File != nil} {
		if set {
			objects++
		}
	}
	if objects != 1 {
		return api.Errorf(api.CodeInternal, "a change must be about one object, not %d", objects)
	}
	if id(c) == "" {
		return api.Errorf(api.CodeInternal, "a change of a %s names no ID", c.Ref().Kind)
	}
	return nil
}

func checkClaims(txn *memdb.Txn, c api.Change) error {
	if c.Delete {
		return nil
	}
	for _, claim := range claims(c) {
		for _, kind := range kinds {
			found, err := list(txn, kind, byClaim, claim)
			if err != nil {
				return err
			}
			for _, holder := range found {
				if holder.Ref() != c.Ref() {
					return &ConflictError{Ref: c.Ref(), Claim: claim, Holder: holder.Ref()}
				}
			}
		}
	}
	return nil
}

// stamp sets what the store, not the proposer, decides: the versions.
func stamp(c api.Change, old *api.Change, index api.Index) {
	m := meta(c)
	*m = api.Meta{Created: index, Modified: index}
	if old != nil {
		m.Created = meta(*old).Created
	}
	if svc := c.Service; svc != nil {
		svc.SpecVersion = index
		if old != nil && same(svc.Spec.Task, old.Service.Spec.Task) && same(svc.Spec.Networks, old.Service.Spec.Networks) {
			svc.SpecVersion = old.Service.SpecVersion
		}
	}
	if task := c.Task; task != nil {
		task.Endpoint.Since = index
		if old != nil && task.Endpoint.State == old.Task.Endpoint.State {
			task.Endpoint.Since = old.Task.Endpoint.Since
		}
	}
}

func meta(c api.Change) *api.Meta {
	switch {
	case c.Cluster != nil:
		return &c.Cluster.Meta
	case c.Node != nil:
		return &c.Node.Meta
	case c.Service != nil:
		return &c.Service.Meta
	case c.Task != nil:
		return &c.Task.Meta
	case c.Network != nil:
		return &c.Network.Meta
	default:
		return &c.File.Meta
	}
}

// same compares two values as they are written. Reading a value back may turn an
// empty list into none, and a manager that restored a snapshot must come to the
// same answer as one that did not.
func same[T any](a, b T) bool {
	if reflect.DeepEqual(a, b) {
		return true // and written equally
	}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// The tables hold *api.Change with Delete unset: one type for all kinds.

func insert(txn *memdb.Txn, c api.Change) error {
	if err := txn.Insert(string(c.Ref().Kind), &c); err != nil {
		return fmt.Errorf("store %s: %w", describe(c.Ref()), err)
	}
	return nil
}

// get returns the stored object, nil if there is none.
func get(txn *memdb.Txn, ref api.Ref) (*api.Change, error) {
	key := ref.ID
	if ref.Kind == api.KindCluster {
		key = string(api.KindCluster)
	}
	return first(txn, ref.Kind, byID, key)
}

func first(txn *memdb.Txn, kind api.Kind, index, key string) (*api.Change, error) {
	obj, err := txn.First(string(kind), index, key)
	if err != nil {
		return nil, fmt.Errorf("read %s by %s %s: %w", kind, index, key, err)
	}
	c, _ := obj.(*api.Change)
	return c, nil
}

// list returns the objects found by a key, or all of the kind if there is no
// key, ordered by key and ID.
func list(txn *memdb.Txn, kind api.Kind, index string, key ...any) ([]*api.Change, error) {
	it, err := txn.Get(string(kind), index, key...)
	if err != nil {
		return nil, fmt.Errorf("list %s by %s: %w", kind, index, err)
	}
	var out []*api.Change
	for obj := it.Next(); obj != nil; obj = it.Next() {
		out = append(out, obj.(*api.Change))
	}
	return out, nil
}
