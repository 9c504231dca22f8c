package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tesserae-hsm/tesserae/internal/errkind"
	"github.com/tesserae-hsm/tesserae/orchestrator/hosting"
	"github.com/tesserae-hsm/tesserae/orchestrator/lifecycle"
	"github.com/tesserae-hsm/tesserae/orchestrator/unit"
)

// metrics serves Prometheus on the loopback interface.
type metrics struct {
	listener net.Listener // nil: off
	server   *http.Server
	owned    sync.WaitGroup
}

func listenMetrics(ctx context.Context, address string) (*metrics, error) {
	m := &metrics{}
	if address == "off" {
		return m, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, errkind.Errorf(errkind.Unavailable, "metrics: %w", err)
	}
	m.listener = l
	return m, nil
}

func (m *metrics) address() string {
	if m.listener == nil {
		return "off"
	}
	return m.listener.Addr().String()
}

func (m *metrics) serve(host *hosting.Host, u *unit.Unit) {
	if m.listener == nil {
		return
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newCollector(host, u))
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 10 * time.Second}))
	m.server = &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	m.owned.Go(func() { _ = m.server.Serve(m.listener) }) // ends with close
}

func (m *metrics) close() error {
	if m.listener == nil {
		return nil
	}
	if m.server == nil {
		return m.listener.Close()
	}
	err := m.server.Close()
	m.owned.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// collector asks the host at each scrape, so that figures are live.
type collector struct {
	host *hosting.Host
	unit *unit.Unit

	connected, state, level, control, restarts         *prometheus.Desc
	requests, tokens, memory, disk, cpu, sockets, full *prometheus.Desc
}

func newCollector(host *hosting.Host, u *unit.Unit) *collector {
	vcm := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, append([]string{"uuid"}, labels...), nil)
	}
	return &collector{
		host: host, unit: u,
		connected: prometheus.NewDesc("unit_connected", "1 while hsmd answers.", nil, nil),
		state:     vcm("vcm_state", "1 for the state the VCM is in, 0 for the others.", "state"),
		level:     vcm("vcm_isolation_level", "1 for the isolation level of the last start.", "level"),
		control:   vcm("vcm_isolation_control", "1 for the outcome of an isolation control, proven by an attempt.", "control", "state"),
		restarts:  vcm("vcm_restarts", "Restarts since the VCM was last started by the provider."),
		requests:  vcm("vcm_requests_total", "Requests to the token service since the process started."),
		tokens:    vcm("vcm_tokens_total", "Tokens issued since the process started."),
		memory:    vcm("vcm_memory_bytes", "Resident memory."),
		disk:      vcm("vcm_disk_bytes", "Persistent data."),
		cpu:       vcm("vcm_cpu_seconds_total", "Processor time since the process started."),
		sockets:   vcm("vcm_connections", "Open connections to the token service."),
		full:      vcm("vcm_read_only", "1 while the VCM is over its disk quota."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.connected, c.state, c.level, c.control, c.restarts, c.requests, c.tokens, c.memory, c.disk, c.cpu, c.sockets, c.full,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	_, here := c.unit.Epoch()
	send(c.connected, prometheus.GaugeValue, number(here))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := c.host.Stats(ctx, "")
	if err != nil {
		ch <- prometheus.NewInvalidMetric(c.state, err)
		return
	}
	for _, v := range all {
		id := v.Record.UUID
		for _, s := range lifecycle.States() {
			send(c.state, prometheus.GaugeValue, number(s == v.Record.State), id, string(s))
		}
		if v.Record.Level != "" {
			send(c.level, prometheus.GaugeValue, 1, id, v.Record.Level)
		}
		for _, k := range v.Record.Controls {
			send(c.control, prometheus.GaugeValue, 1, id, k.Control, k.Got)
		}
		send(c.restarts, prometheus.GaugeValue, float64(v.Record.Restarts), id)
		send(c.requests, prometheus.CounterValue, float64(v.Requests), id)
		send(c.tokens, prometheus.CounterValue, float64(v.Tokens), id)
		send(c.memory, prometheus.GaugeValue, float64(v.Memory), id)
		send(c.disk, prometheus.GaugeValue, float64(v.DiskUsed), id)
		send(c.cpu, prometheus.CounterValue, v.CPUSeconds, id)
		send(c.sockets, prometheus.GaugeValue, float64(v.Connections), id)
		send(c.full, prometheus.GaugeValue, number(v.ReadOnly), id)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
