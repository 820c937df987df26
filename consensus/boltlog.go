package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// boltLog keeps Raft's log, and what Raft keeps beside it, in one file (bbolt). A
// change is on the disk when a method returns. The file does not shrink: what is
// deleted is used again.
type boltLog struct{ db *bolt.DB }

var (
	entriesBucket = []byte("entries") // index, big-endian -> entry
	stableBucket  = []byte("stable")
)

// boltTimeout bounds the wait for a file that is in use; the state directory's
// lock has made sure already that none waits.
const boltTimeout = 5 * time.Second

func openBolt(dir string) (_ *boltLog, err error) {
	defer func() {
		if damage := recover(); damage != nil { // what bbolt says to a broken page
			err = fmt.Errorf("%s is damaged: %v", filepath.Join(dir, "log.db"), damage)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := bolt.Open(filepath.Join(dir, "log.db"), 0o600, &bolt.Options{
		Timeout: boltTimeout,
		// The list of free pages is found again at start, and not written with
		// each entry.
		NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	})
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(entriesBucket)
		if err == nil {
			_, err = tx.CreateBucketIfNotExists(stableBucket)
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &boltLog{db}, nil
}

func (b *boltLog) Close() error { return b.db.Close() }

func (b *boltLog) FirstIndex() (uint64, error) {
	return b.index(func(c *bolt.Cursor) []byte { k, _ := c.First(); return k })
}

func (b *boltLog) LastIndex() (uint64, error) {
	return b.index(func(c *bolt.Cursor) []byte { k, _ := c.Last(); return k })
}

// index returns the index of the entry at one end of the log, 0 if it is empty.
func (b *boltLog) index(end func(*bolt.Cursor) []byte) (index uint64, err error) {
	err = b.db.View(func(tx *bolt.Tx) error {
		if key := end(tx.Bucket(entriesBucket).Cursor()); key != nil {
			index = binary.BigEndian.Uint64(key)
		}
		return nil
	})
	return index, err
}

func (b *boltLog) GetLog(index uint64, log *raft.Log) error {
	return b.db.View(func(tx *bolt.Tx) error {
		value := tx.Bucket(entriesBucket).Get(binary.BigEndian.AppendUint64(nil, index))
		if value == nil {
			return raft.ErrLogNotFound
		}
		return decodeEntry(index, value, log)
	})
}

func (b *boltLog) StoreLog(log *raft.Log) error { return b.StoreLogs([]*raft.Log{log}) }

func (b *boltLog) StoreLogs(logs []*raft.Log) error {
	return b.db.Update(func(tx *bolt.Tx) error {
		bucket := tx.Bucket(entriesBucket)
		bucket.FillPercent = 1 // entries are appended
		for _, log := range logs {
			if err := bucket.Put(binary.BigEndian.AppendUint64(nil, log.Index), encodeEntry(log)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *boltLog) DeleteRange(first, last uint64) error {
	return b.db.Update(func(tx *bolt.Tx) error {
		c := tx.Bucket(entriesBucket).Cursor()
		from := binary.BigEndian.AppendUint64(nil, first)
		for key, _ := c.Seek(from); key != nil && binary.BigEndian.Uint64(key) <= last; key, _ = c.Seek(from) {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// An entry is encoded as its term (8 bytes), when it was appended (8, ns since
// 1970), its type (1), the length of its extensions (4), these, and its data.
const entryHead = 8 + 8 + 1 + 4

func encodeEntry(log *raft.Log) []byte {
	out := make([]byte, 0, entryHead+len(log.Extensions)+len(log.Data))
	out = binary.BigEndian.AppendUint64(out, log.Term)
	appended := int64(0)
	if !log.AppendedAt.IsZero() {
		appended = log.AppendedAt.UnixNano()
	}
	out = binary.BigEndian.AppendUint64(out, uint64(appended))
	out = append(out, byte(log.Type))
	out = binary.BigEndian.AppendUint32(out, uint32(len(log.Extensions)))
	out = append(out, log.Extensions...)
	return append(out, log.Data...)
}

// decodeEntry copies what it reads: the file may move under it.
func decodeEntry(index uint64, value []byte, log *raft.Log) error {
	if len(value) < entryHead {
		return fmt.Errorf("log entry %d is cut short", index)
	}
	*log = raft.Log{Index: index, Term: binary.BigEndian.Uint64(value), Type: raft.LogType(value[16])}
	if appended := int64(binary.BigEndian.Uint64(value[8:])); appended != 0 {
		log.AppendedAt = time.Unix(0, appended)
	}
	extensions := uint64(binary.BigEndian.Uint32(value[17:]))
	rest := value[entryHead:]
	if extensions > uint64(len(rest)) {
		return fmt.Errorf("log entry %d is cut short", index)
	}
	if extensions > 0 {
		log.Extensions = append([]byte(nil), rest[:extensions]...)
	}
	if rest = rest[extensions:]; len(rest) > 0 {
		log.Data = append([]byte(nil), rest...)
	}
	return nil
}

func (b *boltLog) Set(key, value []byte) error {
	return b.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(stableBucket).Put(key, value) })
}

// Get returns nothing for a key that was never set.
func (b *boltLog) Get(key []byte) (value []byte, err error) {
	err = b.db.View(func(tx *bolt.Tx) error {
		value = append(value, tx.Bucket(stableBucket).Get(key)...)
		return nil
	})
	return value, err
}

func (b *boltLog) SetUint64(key []byte, value uint64) error {
	return b.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (b *boltLog) GetUint64(key []byte) (uint64, error) {
	value, err := b.Get(key)
	switch {
	case err != nil || len(value) == 0:
		return 0, err
	case len(value) != 8:
		return 0, fmt.Errorf("%s is no number in the Raft log", key)
	}
	return binary.BigEndian.Uint64(value), nil
}
