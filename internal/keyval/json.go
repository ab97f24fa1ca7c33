package keyval

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// depthMax bounds the nesting of a JSON value: deeper than any graph of images that a person would write.
const depthMax = 32

// ErrNoObject is returned for JSON that is well formed and no object.
var ErrNoObject = errors.New("JSON value is not an object")

// ParseJSON reads an object, nested or with dotted keys.
func ParseJSON(s string) (*Set, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, fmt.Errorf("JSON parse error: %w", err)
	}
	object, isObject := value.(map[string]any)
	if !isObject {
		return nil, ErrNoObject
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("JSON parse error: something follows the object")
	}
	set := &Set{}
	return set, set.flatten("", object, 0)
}

// flatten adds the members of an object in the order of their keys, so that errors name the same one each time.
func (s *Set) flatten(prefix string, object map[string]any, depth int) error {
	if depth > depthMax {
		return fmt.Errorf("JSON parse error: nested deeper than %d", depthMax)
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		if err := checkKey(key); err != nil {
			return err
		}
		if err := s.flattenValue(prefix+key, object[key], depth); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) flattenValue(key string, value any, depth int) error {
	switch v := value.(type) {
	case string:
		s.put(key, v)
	case json.Number:
		s.put(key, v.String())
	case bool:
		s.put(key, map[bool]string{true: "on", false: "off"}[v])
	case map[string]any:
		return s.flatten(key+".", v, depth+1)
	case []any:
		for n, element := range v {
			if err := s.flattenValue(key+"."+strconv.Itoa(n), element, depth+1); err != nil {
				return err
			}
		}
	default:
		return &Error{Parameter: key, Problem: "must not be null"}
	}
	return nil
}
