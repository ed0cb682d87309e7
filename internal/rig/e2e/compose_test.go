//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
	"pixel-ping/internal/version"
)

// compose is what the recipe's compose.yml has. Other names in it fail the test.
type compose struct {
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image, Build, Restart string
	DependsOn             map[string]struct{ Condition string } `json:"depends_on"`
	Environment           map[string]string
	Ports, Volumes        []string
	Healthcheck           struct {
		Test              []string
		Interval, Timeout string
		StartPeriod       string `json:"start_period"`
	}
	ReadOnly        bool     `json:"read_only"`
	CapDrop         []string `json:"cap_drop"`
	SecurityOpt     []string `json:"security_opt"`
	StopGracePeriod string   `json:"stop_grace_period"`
	Init            bool
}

// readCompose reads compose.yml with Python's parser.
func readCompose(t *testing.T) compose {
	t.Helper()
	const parse = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)"
	text, err := exec.Command("python3", "-c", parse, recipe+"docker/compose.yml").Output()
	if err != nil {
		t.Fatalf("%v: %s", err, err.(*exec.ExitError).Stderr)
	}
	var c compose
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return c
}

// dockerfile returns the instructions of a Dockerfile: what follows each name.
func dockerfile(t *testing.T, name string) map[string][]string {
	t.Helper()
	lines := make(map[string][]string)
	for line := range strings.Lines(adapted(t, name)) {
		if instruction, rest, found := strings.Cut(strings.TrimSpace(line), " "); found && instruction != "#" {
			lines[instruction] = append(lines[instruction], rest)
		}
	}
	return lines
}

// list decodes the list of words of CMD or ENTRYPOINT.
func list(t *testing.T, of []string) (words []string) {
	t.Helper()
	if len(of) != 1 {
		t.Fatalf("%q is not one line", of)
	}
	if err := json.Unmarshal([]byte(of[0]), &words); err != nil {
		t.Fatal(err)
	}
	return words
}

// compose.yml agrees with the other files of the recipes: the Dockerfiles, the
// configuration of the daemon, and the schema of the database.
func TestCompose(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	if names := slices.Sorted(maps.Keys(c.Services)); !slices.Equal(names, []string{"hits", "pixel-ping", "postgres"}) {
		t.Fatalf("the services are %q", names)
	}
	daemon, app, database := c.Services["pixel-ping"], c.Services["hits"], c.Services["postgres"]
	var config struct {
		Host, Endpoint, Secret, Journal string
		Port, Interval                  int
	}
	if err := json.Unmarshal([]byte(adapted(t, "docker/config.json")), &config); err != nil {
		t.Fatal(err)
	}
	image, express := dockerfile(t, "docker/Dockerfile"), dockerfile(t, "express/Dockerfile")
	program, file := list(t, image["ENTRYPOINT"])[0], list(t, image["CMD"])[0]
	mounts := []string{"./config.json:" + file + ":ro", "journal:" + config.Journal}
	owned := "--chown=" + image["USER"][0] + " journal " + config.Journal
	for what, is := range map[string]bool{
		"the image of the daemon":        daemon.Image == "pixel-ping:"+version.Number+"-amd64",
		"the ports of the daemon":        slices.Equal(daemon.Ports, []string{"9187:9187"}) && config.Port == 9187,
		"the interfaces of the daemon":   config.Host == "",
		"the volumes of the daemon":      slices.Equal(daemon.Volumes, mounts),
		"the folder of the journal":      slices.Contains(image["COPY"], owned),
		"the health of the daemon":       slices.Equal(daemon.Healthcheck.Test, []string{"CMD", program, "--health", file}),
		"the time for a stop":            seconds(t, daemon.StopGracePeriod) > 10*time.Second,
		"the endpoint":                   config.Endpoint == "http://hits:"+express["EXPOSE"][0]+"/save_hits",
		"the application is built":       app.Build == "../express" && app.Image == "",
		"the ports of the application":   slices.Equal(app.Ports, []string{"127.0.0.1:3000:" + express["EXPOSE"][0]}),
		"the application is reachable":   app.Environment["HOST"] == "0.0.0.0",
		"the volumes of the application": len(app.Volumes) == 0,
		"Node can be stopped":            app.Init,
		"the name of the database": app.Environment["PGHOST"] == "postgres" &&
			app.Environment["PGDATABASE"] == database.Environment["POSTGRES_DB"],
		"the password of the database": app.Environment["PGPASSWORD"] == database.Environment["POSTGRES_PASSWORD"],
		"the ports of the database":    len(database.Ports) == 0,
		"the volumes of the database": slices.Equal(database.Volumes, []string{"database:/var/lib/postgresql/data",
			"../express/schema.sql:/docker-entrypoint-initdb.d/schema.sql:ro"}),
		"the volumes": slices.Equal(slices.Sorted(maps.Keys(c.Volumes)), []string{"database", "journal"}),
		"the order": daemon.DependsOn["hits"].Condition == "service_healthy" &&
			app.DependsOn["postgres"].Condition == "service_healthy",
		"the .env of the README": strings.Contains(adapted(t, "docker/README.md"),
			`'SECRET=%s\nLOGIN=editor:tuna\nDATABASE_PASSWORD=%s\n' `+config.Secret+" "),
	} {
		if !is {
			t.Errorf("%s: the files do not agree, or compose.yml is not what the recipe says", what)
		}
	}
	for name, s := range c.Services {
		h := s.Healthcheck
		if s.Restart != "unless-stopped" || h.Test == nil || h.StartPeriod == "" ||
			seconds(t, h.Timeout) >= seconds(t, h.Interval) {
			t.Errorf("%s: restart is %q, and the health check %+v", name, s.Restart, h)
		}
		if name != "postgres" && (!s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || s.SecurityOpt == nil) {
			t.Errorf("%s has more rights than it needs", name)
		}
	}
}

// seconds parses a duration of compose.yml.
func seconds(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The three services run together with the environment and the configuration of the
// recipe, from the files that the Dockerfile copies, and each health check tells whether
// its service is well.
func TestServicesOfCompose(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	database := startPostgres(t, "fsync=off")
	database.query(t, "-c", "CREATE DATABASE hits")
	database.query(t, "-f", recipe+"express/schema.sql", "-d", "hits")

	// The application has what the Dockerfile copies, and nothing else.
	folder, port := t.TempDir(), rig.FreePort(t)
	build := dockerfile(t, "express/Dockerfile")
	for _, files := range build["COPY"] {
		// The files need not be readable for others: they are the user's.
		names, owned := strings.CutPrefix(strings.TrimSuffix(files, " ./"), "--chown="+build["USER"][0]+" ")
		if !owned {
			t.Errorf("the user of the image may not be able to read what COPY %s copies", files)
		}
		for _, name := range strings.Fields(names) {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(adapted(t, "express/"+name)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(filepath.Join(express, "node_modules"), filepath.Join(folder, "node_modules")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PORT="+port)
	for name, value := range c.Services["hits"].Environment {
		switch {
		case name == "PGHOST", name == "HOST":
			value = "127.0.0.1"
		case name == "SECRET":
			value = "swordfish"
		case name == "LOGIN":
			value = login
		case strings.Contains(value, "${"):
			value = "password"
		}
		env = append(env, name+"="+value)
	}
	command, output := list(t, build["CMD"]), rig.NewOutput()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = folder, append(env, "PGPORT="+database.port)
	app := rig.Start(t, cmd, output, output)
	app.WaitListening(t, "127.0.0.1:"+port)

	var settings map[string]any
	config := adapted(t, "docker/config.json", "hits:3000", "127.0.0.1:"+port)
	if err := json.Unmarshal([]byte(config), &settings); err != nil {
		t.Fatal(err)
	}
	settings["port"], settings["journal"] = rig.FreePort(t), t.TempDir()
	d := rig.StartDaemon(t, settings)

	// healthy runs the health check of a service with the addresses of this test.
	healthy := func(name string) bool {
		t.Helper()
		test := c.Services[name].Healthcheck.Test
		if test[0] != "CMD" {
			t.Fatalf("the health check of %s is %q", name, test)
		}
		var cmd *exec.Cmd
		switch name {
		case "pixel-ping":
			cmd = exec.Command(rig.Binary, test[2], d.Cmd.Args[len(d.Cmd.Args)-1])
		case "hits":
			cmd = exec.Command(test[1], test[2], strings.ReplaceAll(test[3], ":3000/", ":"+port+"/"))
		default:
			cmd = database.command(test[1], test[2:]...)
		}
		text, err := cmd.CombinedOutput()
		t.Logf("%s: %v %s", name, err, text)
		return err == nil
	}
	for name := range c.Services {
		if !healthy(name) {
			t.Errorf("%s is not healthy", name)
		}
	}
	d.Hit(t, "article-42")
	d.Flush(t)
	d.Stop(t)
	hits.application.Add(1)
	got := database.query(t, "-d", "hits", "-c", "SELECT key, count FROM hits")
	if len(got) != 1 || !slices.Equal(got[0], []string{"article-42", "1"}) {
		t.Errorf("saved %q, want one hit of article-42", got)
	}
	if healthy("pixel-ping") {
		t.Error("the daemon is said to be healthy after its end")
	}
	database.stop(t)
	if healthy("postgres") || healthy("hits") {
		t.Error("the database, or the application without it, is said to be healthy after the end of the database")
	}
}
