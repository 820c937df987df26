// Package anything makes values of any type out of a fuzzer's bytes, as they would
// come from outside: through JSON. Bytes that are JSON hardly ever come about by
// chance, and hardly ever name a field.
package anything

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"time"
)

// Of returns a value that the bytes stand for; equal bytes give equal values.
// Strings are mostly words.
func Of[T any](data []byte, words ...string) (*T, error) {
	s := &source{data: data, words: append([]string{"", "a"}, words...)}
	var raw, value T
	s.fill(reflect.ValueOf(&raw).Elem(), 0)
	text, err := json.Marshal(raw)
	if err != nil {
		return nil, fmt.Errorf("write %T: %w", raw, err)
	}
	if err := json.Unmarshal(text, &value); err != nil {
		return nil, fmt.Errorf("read %T: %w", raw, err)
	}
	return &value, nil
}

type source struct {
	data  []byte
	words []string
}

// next is the next byte, 0 when there is none left.
func (s *source) next() byte {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return b
}

// depth bounds values that contain others of their own type.
const depth = 12

var edges = []int64{0, 1, 2, 3, -1, 7, 80, 1000, 65535, 1 << 20, int64(time.Second), math.MaxInt32, math.MaxInt64, math.MinInt64}

func (s *source) number() int64 {
	if b := int(s.next()); b < len(edges)*8 {
		return edges[b%len(edges)]
	}
	return int64(s.next())
}

func (s *source) text() string {
	b := s.next()
	if b < 224 {
		return s.words[int(b)%len(s.words)]
	}
	n := min(int(b-224), len(s.data))
	text := string(s.data[:n])
	s.data = s.data[n:]
	return text
}

func (s *source) fill(v reflect.Value, deep int) {
	if deep > depth || len(s.data) == 0 {
		return
	}
	if special, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if at, ok := special.(*time.Time); ok {
			*at = time.Unix(s.number()%(1<<33), 0).UTC()
			return
		}
		_ = special.UnmarshalText([]byte(s.text())) // not every word is one: then it is zero
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(s.next()&1 == 1)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(s.number())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(s.number()))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(s.number()) / 2)
	case reflect.String:
		v.SetString(s.text())
	case reflect.Pointer:
		if s.next()&1 == 1 {
			v.Set(reflect.New(v.Type().Elem()))
			s.fill(v.Elem(), deep+1)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				s.fill(v.Field(i), deep+1)
			}
		}
	case reflect.Slice:
		s.fillSlice(v, deep)
	case reflect.Map:
		s.fillMap(v, deep)
	}
}

func (s *source) fillSlice(v reflect.Value, deep int) {
	for range s.next() % 4 {
		element := reflect.New(v.Type().Elem()).Elem()
		s.fill(element, deep+1)
		v.Set(reflect.Append(v, element))
	}
}

func (s *source) fillMap(v reflect.Value, deep int) {
	n := s.next() % 4
	if n == 0 {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for range n {
		key, element := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		s.fill(key, deep+1)
		s.fill(element, deep+1)
		v.SetMapIndex(key, element)
	}
}
