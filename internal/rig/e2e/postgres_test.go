//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// postgres is a PostgreSQL server with one database, for one test.
type postgres struct {
	folder  string // holds the sockets and the folder of the data
	port    string
	options []string
	owner   *syscall.SysProcAttr
	process *rig.Process
}

// startPostgres creates a cluster and starts a server with options such as
// fsync=off. The server ends when the test ends.
func startPostgres(t *testing.T, options ...string) *postgres {
	t.Helper()
	folder, err := os.MkdirTemp("", "postgres")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	p := &postgres{folder: folder, port: rig.FreePort(t), options: options, owner: postgresOwner(t)}
	if p.owner != nil {
		if err := os.Chown(folder, int(p.owner.Credential.Uid), int(p.owner.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	initdb := p.command("initdb", "-D", filepath.Join(folder, "data"), "-U", "postgres", "-A", "trust",
		"-E", "UTF8", "--locale=C", "--no-sync")
	if text, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, text)
	}
	p.start(t)
	return p
}

// postgresOwner returns the user that the server runs as, because it refuses to run
// as root, or nil for the user that runs the test.
func postgresOwner(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	owner, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(owner.Uid, 10, 32)
	gid, _ := strconv.ParseUint(owner.Gid, 10, 32)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// command returns one of PostgreSQL's programs. On Debian they are not in the PATH.
func (p *postgres) command(name string, args ...string) *exec.Cmd {
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); found != nil {
		name = slices.Max(found)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.SysProcAttr = p.folder, p.owner
	cmd.Env = append(p.env(), "PATH="+os.Getenv("PATH"), "LC_ALL=C")
	return cmd
}

// env returns the environment in which PostgreSQL's clients find the database.
func (p *postgres) env() []string {
	return []string{"PGHOST=127.0.0.1", "PGPORT=" + p.port, "PGUSER=postgres", "PGDATABASE=postgres"}
}

// start starts the server and waits until it accepts connections.
func (p *postgres) start(t *testing.T) {
	t.Helper()
	args := []string{
		"-D", filepath.Join(p.folder, "data"), "-p", p.port, "-k", p.folder, "-h", "127.0.0.1",
		"-c", "log_line_prefix=",
	}
	for _, option := range p.options {
		args = append(args, "-c", option)
	}
	output := rig.NewOutput()
	p.process = rig.Start(t, p.command("postgres", args...), output, output)
	// If the server were killed, its child processes would run on for a while.
	t.Cleanup(func() {
		p.process.Cmd.Process.Signal(syscall.SIGINT)
		p.process.Wait(t)
	})
	output.WaitLine(t, 0, "LOG:  database system is ready to accept connections")
}

// stop stops the server and closes the connections of its clients.
func (p *postgres) stop(t *testing.T) {
	t.Helper()
	p.process.Signal(t, syscall.SIGINT)
	if status := p.process.Wait(t); status != 0 {
		t.Fatalf("PostgreSQL's exit status is %d; its output is:\n%s", status, p.process.Stdout)
	}
}

// query runs psql with arguments such as -c and SQL, or -f and a file, and returns
// the columns of each row.
func (p *postgres) query(t *testing.T, args ...string) [][]string {
	t.Helper()
	cmd := p.command("psql", append([]string{"-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1"}, args...)...)
	if args[0] == "-f" {
		cmd.Dir, cmd.SysProcAttr = "", nil
	}
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("psql %q: %v\n%s", args, err, text)
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows
}

// counts returns the saved count of each key. A test may run past midnight, so a key
// may have two days.
func (p *postgres) counts(t *testing.T) map[string]int64 {
	t.Helper()
	counts := make(map[string]int64)
	for _, row := range p.query(t, "-c", "SELECT key, sum(count) FROM hits GROUP BY key") {
		var n int64
		if len(row) != 2 {
			t.Fatalf("row %q", row)
		}
		if _, err := fmt.Sscan(row[1], &n); err != nil {
			t.Fatal(err)
		}
		counts[row[0]] = n
	}
	return counts
}
