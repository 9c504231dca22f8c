package matrix

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/thrift/lib/go/thrift"

	"github.com/tesserae-hsm/tesserae/vcm/prismtoken/gen/prismtoken1"
)

// Field is one field of a call, found in the generated code.
type Field struct {
	Path     string
	IDs      []int16 // from the arguments down
	Kind     reflect.Kind
	Required bool
	Optional bool // it lies in a struct that may be absent
	Struct   bool
}

// Fields lists the fields of a call's arguments, those of nested structs too.
func Fields(args thrift.TStruct) []Field {
	return fieldsOf(reflect.TypeOf(args).Elem(), Field{})
}

func fieldsOf(t reflect.Type, above Field) (out []Field) {
	for i := range t.NumField() {
		name, id, required := tag(t.Field(i))
		f := Field{
			Path: strings.TrimPrefix(above.Path+"."+name, "."), IDs: append(slices.Clone(above.IDs), id),
			Kind: t.Field(i).Type.Kind(), Required: required, Optional: above.Optional || above.Path != "" && !above.Required,
		}
		if f.Kind == reflect.Pointer {
			f.Struct = true
			out = append(append(out, f), fieldsOf(t.Field(i).Type.Elem(), f)...)
			continue
		}
		out = append(out, f)
	}
	return out
}

// tag reads what the generator wrote: name, id, required.
func tag(f reflect.StructField) (name string, id int16, required bool) {
	words := strings.Split(f.Tag.Get("thrift"), ",")
	n, err := strconv.ParseInt(words[1], 10, 16)
	if err != nil {
		panic(fmt.Sprintf("field %s has the tag %q", f.Name, f.Tag)) // the generator changed
	}
	return words[0], int16(n), slices.Contains(words, "required")
}

// set gives the field at path a value of its type. An absent struct on the way is
// made, with valid content.
func set(args thrift.TStruct, path string, value any) {
	v := reflect.ValueOf(args).Elem()
	for word := range strings.SplitSeq(path, ".") {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.ValueOf(validAmendment()))
			}
			v = v.Elem()
		}
		v = byName(v, word)
	}
	v.Set(reflect.ValueOf(value).Convert(v.Type()))
}

func byName(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		if n, _, _ := tag(v.Type().Field(i)); n == name {
			return v.Field(i)
		}
	}
	panic(fmt.Sprintf("%s has no field %q", v.Type(), name)) // the table of methods is wrong
}

// Forgotten names the methods of the interface that are not in the table, and the
// fields that no case makes wrong.
func Forgotten(methods []Method) (out []string) {
	api := reflect.TypeFor[prismtoken1.TokenApi]()
	for i := range api.NumMethod() {
		name := strings.TrimSuffix(api.Method(i).Name, "_")
		name = strings.ToLower(name[:1]) + name[1:]
		if !slices.ContainsFunc(methods, func(m Method) bool { return m.Name == name }) {
			out = append(out, "method "+name+" is not in the matrix")
		}
	}
	for _, m := range methods {
		for _, f := range Fields(m.Valid(&Target{}, "")) {
			covered := slices.ContainsFunc(m.Cases, func(c Case) bool { return c.Field == f.Path && c.Code != "" })
			switch _, free := m.Free[f.Path]; {
			case f.Kind == reflect.Bool || f.Struct || f.Path == "accessToken": // no value is out of range; see Run for tokens
			case covered == free:
				out = append(out, fmt.Sprintf("method %s: field %s is covered: %t, said to be free: %t", m.Name, f.Path, covered, free))
			}
		}
	}
	return out
}
