package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os/user"
	"time"

	"pixel-ping/internal/arguments"
	"pixel-ping/internal/cert"
	"pixel-ping/internal/config"
	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/flush"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/listen"
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

// The parts of a stop end at these times after its beginning. Container engines kill after 10 seconds.
const (
	requestsUntil = 2 * time.Second         // the requests that are under way
	deliveryUntil = 6500 * time.Millisecond // the delivery of the counts
	logUntil      = 8200 * time.Millisecond // the log of the counts; after a second signal it has secondLog
	stopUntil     = 8400 * time.Millisecond // the flusher; the last line has until logUntil and logwriter.Grace
	secondLog     = 2 * time.Second
)

// daemon has the parts of a running daemon, in the order in which start makes them. A part that start has not made is
// nil. run may be called once.
type daemon struct {
	path           arguments.Path    // of the configuration
	stdout, stderr *logwriter.Writer // the log, and what goes wrong

	signals     *signals.Signals
	certificate *cert.Certificate
	store       *hits.Store
	server      *server.Server
	manager     *systemd.Notifier
	flusher     *flush.Flusher
	listeners   []net.Listener
	metrics     *metrics.Server

	flushed chan string // receives what the flusher has lost; nil until the flusher runs, which then closes the store
	refused bool        // run has failed, and fails until the configuration or the certificate is edited
}

// run starts the daemon, and returns when it has stopped: by the end of ctx, by a signal, or because it
// cannot accept connections any more. Its error says what went wrong, or which hits a stop has lost.
func (d *daemon) run(ctx context.Context) error {
	defer d.close()
	err := d.start(ctx)
	if err == nil {
		return d.serve()
	} else if d.signals.Stopped.Err() != nil {
		return nil // stopped meanwhile
	}
	return err
}

// close undoes start, in the reverse order. What is undone already stays so.
func (d *daemon) close() {
	d.metrics.Close()
	for _, listener := range d.listeners {
		listener.Close()
	}
	d.manager.Close()
	if d.store != nil && d.flushed == nil {
		d.store.Close()
	}
	d.signals.Close()
}

// start makes the parts, and prints the start-up lines when the daemon listens. The original prints its line before it
// listens, and runs on without a server if the port is taken or the certificate does not load.
func (d *daemon) start(ctx context.Context) error {
	// Signals come first: looking up the name of the host may take long, and a signal ends it.
	d.signals = signals.Watch(ctx, func() { d.stdout.SetDeadline(time.Now().Add(secondLog)) })
	conf, certificate, err := d.load()
	if err != nil {
		return err
	}
	d.certificate = certificate
	if d.store, err = hits.Open(conf.MaxMemory, conf.Journal, d.tell); err != nil {
		return d.path.Name(err)
	}
	d.server = server.New(pixel.Handler{Hits: d.store}, certificate.Getter(),
		server.Limits{Connections: conf.MaxConnections, KeepAlive: conf.KeepAlive}, d.stderr)
	d.server.About(d.path.String() + ": ")
	memory.Bound(memory.ThisMachine(), conf.MaxMemory, d.server.MaxConnections())
	d.manager = systemd.NewNotifier()
	d.flusher = &flush.Flusher{Store: d.store, Discard: conf.Discard, Interval: conf.Interval,
		Stdout: d.stdout, Stderr: d.stderr, About: d.path.String() + ": ", Alive: d.manager.Expect}
	if conf.Endpoint != nil {
		application := endpoint.New(conf.Endpoint, conf.EndpointTarget, conf.Secret, conf.Interval)
		application.Alive, d.flusher.Endpoint = d.manager.Expect, application
		d.store.SealRecovered()
	}

	var inherited bool
	d.listeners, inherited, err = listen.Find(d.signals.Stopped, conf.Host, conf.Port, conf.Socket)
	if err != nil {
		d.refused = errors.Is(err, listen.ErrNoPort)
		return d.path.Name(err)
	}
	if inherited {
		d.server.Inherit()
		if conf.Port != config.NoPort {
			d.tell("host and port are ignored: the daemon serves the sockets that systemd listens on for it")
		}
		conf.Host = "" // for the URL: the socket has its own address
	}
	handler := metrics.Handler{Version: version.Number, Stats: d.stats, NotAfter: certificate.NotAfter}
	if d.metrics, err = metrics.Start(d.signals.Stopped, conf.Metrics, handler); err != nil {
		return d.path.Name(err)
	}

	if conf.Endpoint != nil {
		fmt.Fprintf(d.stdout, "Flushing hits to %s\n", conf.EndpointText)
	} else {
		fmt.Fprintf(d.stderr, "No endpoint set. Hits won't be flushed, add \"endpoint\" to %s.\n", d.path)
	}
	fmt.Fprintf(d.stdout, "Serving the pixel at %s\n", d.server.URL(conf.Host, d.listeners[0], pixel.Path))
	d.metrics.Announce(d.stdout)
	return nil
}

// serve serves until the daemon is to stop. Then it delivers the counts that are held.
func (d *daemon) serve() (err error) {
	failures := make(chan error, len(d.listeners))
	for _, listener := range d.listeners {
		go func() { failures <- d.server.Serve(listener) }()
	}
	answered := make(chan struct{})
	d.flushed = make(chan string, 1)
	go func() { d.flushed <- d.flusher.Run(d.signals.Abandoned, answered, d.signals.Forced) }()
	go d.certificate.Watch(d.signals.Abandoned, d.tell)
	go memory.Return(d.signals.Abandoned, func() int { return int(d.server.Stats().Open) })
	status := func() string { return d.stats().Status(time.Now()) }
	d.manager.Ready(d.signals.Stopped, status)

	select {
	case <-d.signals.Stopped.Done():
	case err = <-failures:
		fmt.Fprintf(d.stderr, "pixel-ping: cannot accept connections: %v\n", err)
		err = errors.New("stopped, since it cannot accept connections")
		d.signals.Stop()
	}
	d.signals.AbandonAfter(deliveryUntil)
	d.stdout.SetDeadline(time.Now().Add(logUntil))
	late := time.After(stopUntil)
	d.manager.Stopping(status())
	requests, cancel := context.WithTimeout(d.signals.Abandoned, requestsUntil)
	defer cancel()
	d.server.Stop(requests)
	close(answered)
	select {
	case lost := <-d.flushed:
		if lost != "" {
			err = errors.New(lost)
		}
	case <-late:
		err = errors.New(d.flusher.Unfinished())
	}
	return err
}

// stats returns what the parts count. It may be called by many goroutines at once.
func (d *daemon) stats() stats.All {
	return stats.All{Hits: d.store.Stats(), Flushes: d.flusher.Stats(), Connections: d.server.Stats()}
}

// load reads the configuration, and the certificate that it names: certificate is nil if it names none.
// It prints warnings about both, and fills in what is left to the machine.
func (d *daemon) load() (conf config.Config, certificate *cert.Certificate, err error) {
	conf, warnings, err := config.Load(string(d.path))
	if err == nil {
		certificate, err = cert.Load(conf.SSLKey, conf.SSLCert, conf.SSLCA)
		err = d.path.Name(err)
		if warning := certificate.Warning(); warning != "" {
			warnings = append(warnings, warning)
		}
		machine := memory.ThisMachine()
		warnings = append(warnings, machine.Fit(&conf.MaxMemory, &conf.MaxConnections, server.DefaultConnections)...)
	}
	if errors.Is(err, fs.ErrPermission) {
		if self, unknown := user.Current(); unknown == nil {
			err = fmt.Errorf("%w for the user %s", err, self.Username)
		}
	}
	for _, warning := range warnings {
		d.tell(warning)
	}
	d.refused = err != nil
	return conf, certificate, err
}

// tell writes a line about the configuration to stderr.
func (d *daemon) tell(line string) { d.path.Tell(d.stderr, line) }
