package isolation

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"time"
)

var readyLine = regexp.MustCompile(`orchestratord: ready .* metrics=(\S+)`)

// metrics checks the figures that the orchestrator exports about a VCM.
func (s *Suite) metrics(ctx context.Context, p *platform, v *vcm, level string) error {
	log, err := os.ReadFile(p.Path("log", "orchestratord.log"))
	if err != nil {
		return err
	}
	m := readyLine.FindSubmatch(log)
	if m == nil {
		return fmt.Errorf("orchestratord does not say where its metrics are")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(m[1])+"/metrics", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	check := func(format string, args ...any) {
		if !regexp.MustCompile(fmt.Sprintf(format, args...)).Match(text) {
			s.hole("the metrics have no line like "+format, args...)
		}
	}
	check(`(?m)^vcm_isolation_level\{.*level="%s".*uuid="%s".*\} 1$`, level, v.uuid)
	for _, c := range v.report.Isolation {
		check(`(?m)^vcm_isolation_control\{.*control="%s".*state="%s".*uuid="%s".*\} 1$`, c.Control, c.Got, v.uuid)
	}
	return nil
}
