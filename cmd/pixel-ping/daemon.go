package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"pixel-ping/internal/cert"
	"pixel-ping/internal/config"
	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/flush"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/memory"
	"pixel-ping/internal/metrics"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/server"
	"pixel-ping/internal/signals"
	"pixel-ping/internal/stats"
	"pixel-ping/internal/systemd"
	"pixel-ping/internal/version"
)

// The parts of a stop end at these times after its beginning. Container engines kill
// after 10 seconds.
const (
	requestsUntil = 2 * time.Second         // the requests that are under way
	deliveryUntil = 6500 * time.Millisecond // the delivery of the counts
	logUntil      = 8400 * time.Millisecond // the log of the counts
	stopUntil     = 8500 * time.Millisecond // the flusher; then the program ends

	// secondLog is how long the log may take after a second signal.
	secondLog = 2 * time.Second
)

// daemon wires the store, the server, the flusher and those who watch them, prints
// the start-up lines, and runs until it is stopped: by the end of ctx, by a signal, or
// because it cannot accept connections any more. Then it delivers the counts that it
// holds. The original prints its line before it listens, and runs on without a server
// if the port is taken or the certificate does not load.
func daemon(ctx context.Context, path string, stdout, stderr *logwriter.Writer) error {
	tell := func(line string) { fmt.Fprintf(stderr, "pixel-ping: %s: %s\n", oneLine(path), oneLine(line)) }
	conf, certificate, err := load(path, stderr)
	if err != nil {
		return err
	}
	store, err := hits.Open(conf.MaxMemory, conf.Journal, tell)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	srv := server.New(pixel.Handler{Hits: store}, certificate.Getter(),
		server.Limits{Connections: conf.MaxConnections}, stderr)
	memory.Bound(conf.MaxMemory, srv.MaxConnections())
	flusher := &flush.Flusher{Store: store, Discard: conf.Discard, Interval: conf.Interval, Stdout: stdout, Stderr: stderr}
	if conf.Endpoint != nil {
		flusher.Endpoint = endpoint.New(conf.Endpoint, conf.EndpointTarget, conf.Secret, conf.Interval)
	}

	// Signals are handled before the daemon listens: looking up the name of the host may
	// take long, and a signal ends it.
	process := signals.Watch(ctx, func() { stdout.SetDeadline(time.Now().Add(secondLog)) })
	defer process.Close()
	listeners, err := systemd.Listeners()
	switch {
	case err != nil:
	case listeners != nil:
		srv.Inherit()
		conf.Host = "" // for the URL: the socket has its own address
	case conf.Socket != "":
		listeners, err = server.ListenSocket(conf.Socket)
	case conf.Port == config.NoPort:
		err = config.ErrNoPort
	default:
		listeners, err = server.Listen(process.Running, conf.Host, conf.Port)
	}
	report := func() stats.All {
		return stats.All{Hits: store.Stats(), Flushes: flusher.Stats(), Connections: srv.Stats()}
	}
	var scrapes *metrics.Server
	if err == nil {
		scrapes, err = metrics.Start(process.Running, conf.Metrics, metrics.Handler{Version: version.Number, Stats: report})
	}
	if process.Running.Err() != nil { // stopped meanwhile
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer scrapes.Close()
	if conf.Endpoint != nil {
		fmt.Fprintf(stdout, "Flushing hits to %s\n", conf.EndpointText)
	} else {
		fmt.Fprintf(stderr, "No endpoint set. Hits won't be flushed, add \"endpoint\" to %s.\n", oneLine(path))
	}
	fmt.Fprintf(stdout, "Serving the pixel at %s\n", srv.URL(conf.Host, listeners[0], pixel.Path))
	scrapes.Announce(stdout)

	failures := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() { failures <- srv.Serve(listener) }()
	}
	stopped, flushed := make(chan struct{}), make(chan flush.Rest, 1)
	go func() { flushed <- flusher.Run(process.Delivery, stopped, process.Forced) }()
	go certificate.Watch(process.Delivery, func(err error) { tell(err.Error()) })
	go memory.Return(process.Delivery)
	manager, status := systemd.NewNotifier(), func() string { return report().Status(time.Now()) }
	manager.Ready(process.Running, status)

	select {
	case <-process.Running.Done():
	case err = <-failures:
		fmt.Fprintf(stderr, "pixel-ping: cannot accept connections: %v\n", err)
		err = errors.New("stopped, since it cannot accept connections")
		process.End()
	}
	process.AbandonAfter(deliveryUntil)
	stdout.SetDeadline(time.Now().Add(logUntil))
	late := time.After(stopUntil)
	manager.Stopping(status())
	requests, cancel := context.WithTimeout(process.Delivery, requestsUntil)
	defer cancel()
	srv.Stop(requests)
	close(stopped)
	var lost string
	select {
	case rest := <-flushed:
		if rest.Hits > 0 {
			lost = rest.String()
		}
	case <-late:
		lost = flusher.Unfinished()
	}
	if lost != "" {
		return errors.New(lost)
	}
	return err
}

// load reads the configuration, and the certificate that it names: certificate is
// nil if it names none. load prints the warnings about the configuration. Its
// errors begin with path.
func load(path string, stderr io.Writer) (conf config.Config, certificate *cert.Certificate, err error) {
	conf, warnings, err := config.Load(path)
	for _, warning := range warnings {
		fmt.Fprintf(stderr, "pixel-ping: %s: %s\n", oneLine(path), warning)
	}
	if err == nil {
		if certificate, err = cert.Load(conf.SSLKey, conf.SSLCert, conf.SSLCA); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	return conf, certificate, err
}
