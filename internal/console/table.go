package console

import (
	"io"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table writes rows under header, for people.
func Table(w io.Writer, header []string, rows [][]string) { newTable(w, header, rows).Render() }

// ProseTable is Table for cells with sentences: it is no wider than width, long
// cells are wrapped, and lines are drawn between the rows.
func ProseTable(w io.Writer, width int, header []string, rows [][]string) {
	const frame = 3 // of each column, and one at the end
	t := newTable(w, header, rows)
	t.Style().Options.SeparateRows = true
	most := fit(width-1-frame*len(header), append([][]string{header}, rows...))
	columns := make([]table.ColumnConfig, len(header))
	for i := range header {
		columns[i] = table.ColumnConfig{Number: i + 1, WidthMax: most, WidthMaxEnforcer: text.WrapSoft}
	}
	t.SetColumnConfigs(columns)
	t.Render()
}

// fit is how wide the widest columns may be for all to fit into width.
func fit(width int, rows [][]string) int {
	natural := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, cell := range r {
			natural[i] = max(natural[i], utf8.RuneCountInString(cell))
		}
	}
	const least = 4
	for most := width; most > least; most-- {
		sum := 0
		for _, n := range natural {
			sum += min(n, most)
		}
		if sum <= width {
			return most
		}
	}
	return least
}

func newTable(w io.Writer, header []string, rows [][]string) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = 0
	t.AppendHeader(row(header))
	for _, r := range rows {
		t.AppendRow(row(r))
	}
	return t
}

func row(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		r[i] = c
	}
	return r
}
