package interop

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
)

// Thrift's C# library comes as a source tree with the Go module that this project
// depends on. Mono's compiler knows C# 7 and .NET's classes of its time; the
// library and the generated code ask for a little more, so a copy is compiled in
// which ValueTask is Task and the server's half is left out. The example itself
// is compiled as it is.
const csharpPlaceholders = `namespace Microsoft.Extensions.Logging { public interface ILogger {} public interface ILogger<T> : ILogger {} public interface ILoggerFactory {} }
namespace Thrift.Transport.Server { class Placeholder {} }
namespace System.Drawing { class Placeholder {} }
`

// csharpParts are the library's folders that a client over TLS needs, and the
// files of them that it does not.
var (
	csharpParts = []string{"Collections", "Processor", "Protocol", "Transport"}
	csharpOmit  = regexp.MustCompile(`/(TCompact|TJSON|TMultiplexed|TSingleton|THttp|TNamed|Server/|ITProcessorFactory)`)

	valueTask    = regexp.MustCompile(`\bValueTask\b`)
	newValueTask = regexp.MustCompile(`new Task<\w+>\(`)
	serverHalf   = regexp.MustCompile(`(?s)\n  public class AsyncProcessor.*?(\n  public class InternalStructs)`)
)

func prepareCSharpExample(ctx context.Context, w workspace) ([]string, []string, error) {
	compiler, err := needs("mcs", "mono-mcs")
	if err != nil {
		return nil, nil, err
	}
	mono, err := needs("mono", "mono-runtime")
	if err != nil {
		return nil, nil, err
	}
	library, err := thriftSources(ctx)
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(w.dir, "csharp")
	if err := copyCSharp(filepath.Join(library, "lib", "netstd", "Thrift"), filepath.Join(dir, "library")); err != nil {
		return nil, nil, err
	}
	if err := copySources(w.generated, filepath.Join(dir, "generated"), nil); err != nil {
		return nil, nil, err
	}
	placeholders := filepath.Join(dir, "library", "Placeholders.cs")
	if err := os.WriteFile(placeholders, []byte(csharpPlaceholders), 0o600); err != nil {
		return nil, nil, err
	}
	binary := filepath.Join(dir, "Vend.exe")
	for _, c := range [][]string{
		{"-target:library", "-unsafe", "-define:NETSTANDARD", "-recurse:library/*.cs", "-out:Thrift.dll"},
		{"-target:library", "-r:Thrift.dll", "-recurse:generated/*.cs", "-out:PrismToken.dll"},
		{"-r:Thrift.dll", "-r:PrismToken.dll", "-out:" + binary, w.source},
	} {
		if err := run(ctx, dir, nil, compiler, append([]string{"-langversion:latest", "-nowarn:618,1998,162,168,414,649"}, c...)...); err != nil {
			return nil, nil, fmt.Errorf("compile the C# example: %w", err)
		}
	}
	return []string{mono, binary}, nil, nil
}

// thriftSources is the folder of the Thrift module, all of its languages in it.
func thriftSources(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/apache/thrift").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		return "", errkind.Errorf(errkind.Unavailable, "the sources of Thrift are missing: go mod download github.com/apache/thrift (%w)", err)
	}
	return dir, nil
}

func copyCSharp(from, to string) error {
	if err := copySources(from, to, func(rel string) bool { return !strings.Contains(rel, "/") }); err != nil {
		return err
	}
	for _, part := range csharpParts {
		keep := func(rel string) bool { return !csharpOmit.MatchString("/" + rel) }
		if err := copySources(filepath.Join(from, part), filepath.Join(to, part), keep); err != nil {
			return err
		}
	}
	return nil
}

// copySources copies the C# files below from, changed for Mono.
func copySources(from, to string, keep func(rel string) bool) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".cs" {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || keep != nil && !keep(filepath.ToSlash(rel)) {
			return err
		}
		p, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		p = newValueTask.ReplaceAll(valueTask.ReplaceAll(p, []byte("Task")), []byte("Task.FromResult("))
		p = serverHalf.ReplaceAll(p, []byte("$1"))
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), p, 0o600)
	})
}
