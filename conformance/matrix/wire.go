package matrix

import (
	"context"
	"slices"

	"github.com/apache/thrift/lib/go/thrift"
)

// Struct is a struct as it travels, with any fields: the one that is sent, or one
// that is received and of no interest.
type Struct []member

// member is one field of a Struct.
type member struct {
	id    int16
	kind  thrift.TType
	value any // Struct, string, bool, int16, int32, int64 or float64
}

// treeOf is a generated struct as it travels.
func treeOf(ctx context.Context, s thrift.TStruct) (Struct, error) {
	p := thrift.NewTBinaryProtocolConf(thrift.NewTMemoryBuffer(), nil)
	if err := s.Write(ctx, p); err != nil {
		return nil, err
	}
	return readStruct(ctx, p)
}

func readStruct(ctx context.Context, p thrift.TProtocol) (out Struct, err error) {
	for {
		_, kind, id, err := p.ReadFieldBegin(ctx)
		if err != nil || kind == thrift.STOP {
			return out, err
		}
		m := member{id: id, kind: kind}
		switch kind {
		case thrift.STRUCT:
			m.value, err = readStruct(ctx, p)
		case thrift.STRING:
			m.value, err = p.ReadString(ctx)
		case thrift.BOOL:
			m.value, err = p.ReadBool(ctx)
		case thrift.I16:
			m.value, err = p.ReadI16(ctx)
		case thrift.I32:
			m.value, err = p.ReadI32(ctx)
		case thrift.I64:
			m.value, err = p.ReadI64(ctx)
		case thrift.DOUBLE:
			m.value, err = p.ReadDouble(ctx)
		default:
			err = p.Skip(ctx, kind)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
}

// without is s without the field that ids lead to.
func (s Struct) without(ids []int16) Struct {
	return s.edit(ids, func(Struct, int) *member { return nil })
}

// retyped is s with that field as a string, or as a number where it is one.
func (s Struct) retyped(ids []int16) Struct {
	return s.edit(ids, func(in Struct, i int) *member {
		if in[i].kind == thrift.STRING {
			return &member{in[i].id, thrift.I64, int64(1)}
		}
		return &member{in[i].id, thrift.STRING, "1"}
	})
}

func (s Struct) edit(ids []int16, change func(in Struct, i int) *member) Struct {
	out := slices.Clone(s)
	i := slices.IndexFunc(out, func(m member) bool { return m.id == ids[0] })
	if len(ids) > 1 {
		out[i].value = out[i].value.(Struct).edit(ids[1:], change)
		return out
	}
	if m := change(out, i); m != nil {
		out[i] = *m
		return out
	}
	return slices.Delete(out, i, i+1)
}

// Write sends the struct.
func (s Struct) Write(ctx context.Context, p thrift.TProtocol) error {
	for _, m := range s {
		if err := p.WriteFieldBegin(ctx, "", m.kind, m.id); err != nil {
			return err
		}
		var err error
		switch v := m.value.(type) {
		case Struct:
			err = v.Write(ctx, p)
		case string:
			err = p.WriteString(ctx, v)
		case bool:
			err = p.WriteBool(ctx, v)
		case int16:
			err = p.WriteI16(ctx, v)
		case int32:
			err = p.WriteI32(ctx, v)
		case int64:
			err = p.WriteI64(ctx, v)
		case float64:
			err = p.WriteDouble(ctx, v)
		}
		if err != nil {
			return err
		}
	}
	return p.WriteFieldStop(ctx)
}

// Read takes any struct and forgets it.
func (Struct) Read(ctx context.Context, p thrift.TProtocol) error { return p.Skip(ctx, thrift.STRUCT) }
