package store

import (
	"fmt"
	"strconv"

	"github.com/hashicorp/go-memdb"

	"github.com/orch-dev/orch/pkg/api"
)

// The tables are named by the kinds of objects they hold.
var kinds = []api.Kind{api.KindCluster, api.KindNode, api.KindNetwork, api.KindService, api.KindTask, api.KindFile}

const (
	byID    = "id"
	byClaim = "claim" // what the object has to itself; see claims
	byNode  = "node"  // tasks
)

func newDB() *memdb.MemDB {
	schema := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, kind := range kinds {
		schema.Tables[string(kind)] = &memdb.TableSchema{Name: string(kind), Indexes: map[string]*memdb.IndexSchema{
			byID:    {Name: byID, Unique: true, Indexer: keyFunc(id)},
			byClaim: {Name: byClaim, AllowMissing: true, Indexer: keysFunc(claims)},
		}}
	}
	tasks := schema.Tables[string(api.KindTask)].Indexes
	tasks[byNode] = &memdb.IndexSchema{Name: byNode, AllowMissing: true, Indexer: keyFunc(func(c api.Change) string {
		return string(c.Task.NodeID)
	})}
	db, err := memdb.NewMemDB(schema)
	if err != nil {
		panic(fmt.Sprintf("make tables: %v", err)) // the schema is a constant
	}
	return db
}

// id is an object's key in its table.
func id(c api.Change) string {
	if c.Cluster != nil {
		return "cluster" // there is one
	}
	return c.Ref().ID
}

// claims are what the object has and no other object may: its name, its
// number, its address. They read as the start of a sentence.
func claims(c api.Change) []string {
	var out []string
	switch {
	case c.Service != nil:
		out = append(out, serviceName(c.Service.Spec.Name))
		if c.Service.VIP.IsValid() {
			out = append(out, "address "+c.Service.VIP.String())
		}
	case c.Network != nil:
		out = append(out, networkName(c.Network.Name))
		if n := c.Network.Number; n != 0 {
			out = append(out, "network number "+strconv.FormatUint(uint64(n), 10))
		}
	case c.File != nil && c.File.Stack == "":
		out = append(out, string(c.File.Class)+" name "+c.File.Name)
	case c.Task != nil:
		if e := c.Task.Endpoint; e.Addr.IsValid() && e.State != api.EndpointGone {
			out = append(out, "address "+e.Addr.String())
		}
	}
	return out
}

func serviceName(name string) string { return "service name " + name }
func networkName(name string) string { return "network name " + name }

// keyFunc is a memdb index with one key for an object, or none if it is empty.
type keyFunc func(api.Change) string

// FromObject implements memdb.SingleIndexer.
func (key keyFunc) FromObject(obj any) (bool, []byte, error) {
	k := key(*obj.(*api.Change))
	return k != "", terminated(k), nil
}

// FromArgs implements memdb.Indexer.
func (keyFunc) FromArgs(args ...any) ([]byte, error) { return terminated(args[0].(string)), nil }

// keysFunc is a memdb index with any number of keys for an object.
type keysFunc func(api.Change) []string

// FromObject implements memdb.MultiIndexer.
func (keys keysFunc) FromObject(obj any) (bool, [][]byte, error) {
	var out [][]byte
	for _, k := range keys(*obj.(*api.Change)) {
		out = append(out, terminated(k))
	}
	return len(out) > 0, out, nil
}

// FromArgs implements memdb.Indexer.
func (keysFunc) FromArgs(args ...any) ([]byte, error) { return terminated(args[0].(string)), nil }

// terminated keeps a key from being a prefix of another.
func terminated(key string) []byte { return append([]byte(key), 0) }
