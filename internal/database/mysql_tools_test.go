package database_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// mysqlTools behave as the tools of a version of MySQL do by its manual, for a server of some version: which options they refuse, what
// they ask, and what their dumps say. The real ones are not in Debian. With maria they are those of MariaDB 10.11.
type mysqlTools struct {
	says           string // of its version
	tool, server   [3]int
	maria          bool
	dumped, loaded strings.Builder
}

// known are the options that tools of MySQL have, of those that Backstay uses or once used.
func (m *mysqlTools) known(name string) bool {
	since := func(version ...int) bool { return !m.maria && slices.Compare(m.tool[:], version) >= 0 }
	switch name {
	case "no-defaults", "user", "default-character-set", "protocol", "socket", "host", "port", "ssl-ca", "max-allowed-packet",
		"batch", "skip-column-names", "binary-mode", "local-infile", "connect-timeout",
		"single-transaction", "quick", "routines", "events", "triggers", "hex-blob", "skip-dump-date", "no-tablespaces", "comments", "databases":
		return true
	case "ssl-mode", "set-gtid-purged":
		return !m.maria
	case "column-statistics":
		return since(8, 0, 2)
	case "source-data":
		return since(8, 0, 26)
	case "master-data":
		return !since(8, 4)
	case "ssl", "skip-ssl", "ssl-verify-server-cert":
		return !since(8)
	}
	return false
}

func (m *mysqlTools) Run(_ context.Context, c database.Command) error {
	programs := []string{"mysql", "mysqldump"}
	if m.maria {
		programs = []string{"mariadb", "mariadb-dump"}
	}
	ends := func(status int, format string, args ...any) error {
		return &database.Ended{Program: c.Argv[0], Status: status, Said: fmt.Sprintf(format, args...)}
	}
	switch {
	case !slices.Contains(programs, c.Argv[0]):
		return fault.New("", fault.ErrNotFound, c.Argv[0]+" is not installed", "")
	case slices.Equal(c.Argv[1:], []string{"--version"}):
		_, err := fmt.Fprintf(c.Stdout, "%s  %s\n", c.Argv[0], m.says)
		return err
	case c.Argv[1] != "--no-defaults":
		return ends(2, "unknown option '--no-defaults'") // only the first may be it
	}
	options, names := map[string]string{}, []string(nil)
	for i, argument := range c.Argv[1:] {
		if argument == "--" {
			names = c.Argv[i+2:]
			break
		}
		name, value, has := strings.Cut(strings.TrimPrefix(argument, "--"), "=")
		name, loose := strings.CutPrefix(name, "loose-")
		switch known := m.known(name); {
		case known:
			options[name] = value
		case loose:
		case has:
			return ends(7, "[ERROR] unknown variable '%s'.", strings.TrimPrefix(argument, "--"))
		default:
			return ends(2, "[ERROR] unknown option '%s'.", argument)
		}
	}
	if options["ssl-mode"] == "VERIFY_IDENTITY" && options["ssl-ca"] == "" {
		return ends(1, "ERROR 2026 (HY000): SSL connection error: CA certificate is required if ssl-mode is VERIFY_CA or VERIFY_IDENTITY")
	}
	if !strings.HasSuffix(c.Argv[0], "dump") {
		return m.client(c)
	}
	if said := m.refused(options); said != "" {
		return ends(2, "%s", said)
	}
	text := m.dump(options, names)
	m.dumped.WriteString(text)
	_, err := io.WriteString(c.Stdout, text)
	return err
}

// refused is what the tool complains of that the server does not know.
func (m *mysqlTools) refused(options map[string]string) string {
	statistics, has := options["column-statistics"]
	if m.known("column-statistics") && (!has || statistics != "0") && m.server[0] < 8 {
		return "Couldn't execute 'SELECT COLUMN_NAME, … FROM information_schema.COLUMN_STATISTICS …': Unknown table 'COLUMN_STATISTICS' in information_schema (1109)"
	}
	_, master := options["master-data"]
	_, source := options["source-data"]
	if removed := slices.Compare(m.server[:], []int{8, 4}) >= 0; (master || source) && removed && slices.Compare(m.tool[:], []int{8, 2}) < 0 {
		return "Couldn't execute 'SHOW MASTER STATUS': You have an error in your SQL syntax; check the manual … near 'MASTER STATUS' at line 1 (1064)"
	}
	return ""
}

func (m *mysqlTools) dump(options map[string]string, names []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "-- MySQL dump 10.13  Distrib %d.%d.%d, for Linux (x86_64)\n--\n", m.tool[0], m.tool[1], m.tool[2])
	b.WriteString("-- Host: db    Database: \n-- ------------------------------------------------------\n\n/*!50503 SET NAMES utf8mb4 */;\n")
	if options["set-gtid-purged"] != "OFF" && !m.maria {
		b.WriteString("SET @@SESSION.SQL_LOG_BIN= 0;\n\n--\n-- GTID state at the beginning of the backup \n--\n\nSET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3e11fa47:1-5';\n")
	}
	position := "CHANGE MASTER TO MASTER_LOG_FILE='binlog.000002', MASTER_LOG_POS=157;"
	if m.tool[0] > 8 || m.tool[0] == 8 && m.tool[1] >= 2 {
		position = "CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000002', SOURCE_LOG_POS=157;"
	}
	if options["master-data"] == "2" || options["source-data"] == "2" {
		b.WriteString("\n--\n-- Position to start replication or point-in-time recovery from\n--\n\n-- " + position + "\n")
	}
	for _, name := range names {
		fmt.Fprintf(&b, "\n--\n-- Current Database: `%[1]s`\n--\n\nCREATE DATABASE /*!32312 IF NOT EXISTS*/ `%[1]s` /*!80016 DEFAULT ENCRYPTION='N' */;\n\nUSE `%[1]s`;\n", name)
		b.WriteString("\n--\n-- Table structure for table `orders`\n--\n\nCREATE TABLE `orders` (\n  `id` int NOT NULL\n);\n\n--\n-- Dumping data for table `orders`\n--\n\nINSERT INTO `orders` VALUES (1);\n")
		b.WriteString("\n--\n-- Temporary view structure for view `open`\n--\n\nSET @saved_cs_client     = @@character_set_client;\n")
	}
	b.WriteString("\n-- Dump completed\n")
	return b.String()
}

// client answers what Backstay asks, and takes dumps.
func (m *mysqlTools) client(c database.Command) error {
	sql, err := io.ReadAll(c.Stdin)
	if err != nil {
		return err
	}
	switch text := string(sql); {
	case strings.Contains(text, "-- MySQL dump"):
		m.loaded.WriteString(text)
	case strings.Contains(text, "VERSION()"):
		hexed := func(text string) string { return strings.ToUpper(hex.EncodeToString([]byte(text))) }
		version := fmt.Sprintf("%d.%d.%d", m.server[0], m.server[1], m.server[2])
		_, err = fmt.Fprintf(c.Stdout, "version\t%s\t0\nlogs\t\t1\ndatabase\t%s\t0\ndatabase\t%s\t0\n", hexed(version), hexed("shop"), hexed("stock"))
	}
	return err
}

// TestToolsOfMySQL dumps and loads with what MySQL itself ships, and with MariaDB's from servers of MySQL.
func TestToolsOfMySQL(t *testing.T) {
	t.Parallel()
	v57, v8020, v8036, v84, v96 := [3]int{5, 7, 44}, [3]int{8, 0, 20}, [3]int{8, 0, 36}, [3]int{8, 4, 3}, [3]int{9, 6, 0}
	maria := [3]int{5, 5, 5}
	const position = "binlog.000002:157"
	for _, test := range []struct {
		says         string
		tool, server [3]int
		position     string
	}{
		{"Ver 10.13 Distrib 5.7.44, for Linux (x86_64)", v57, v57, position},
		{"Ver 8.0.20 for Linux on x86_64 (MySQL Community Server - GPL)", v8020, v8020, position},
		{"Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)", v8036, v8036, position},
		{"Ver 8.0.36-28 for Linux on x86_64 (Percona Server (GPL), Release 28, Revision 47601f19)", v8036, v57, position},
		{"Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)", v8036, v84, ""},
		{"Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)", v84, v84, position},
		{"Ver 9.6.0 for Linux on x86_64 (MySQL Community Server - GPL)", v96, v96, position},
		{"Ver 10.19 Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)", maria, v8036, position},
		{"Ver 10.19 Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)", maria, v84, ""},
	} {
		for _, mode := range []string{database.TLSOffered, database.TLSDisable, database.TLSVerify} {
			t.Run(fmt.Sprintf("%s, server %v, tls %s", test.says, test.server, mode), func(t *testing.T) {
				tools := &mysqlTools{says: test.says, tool: test.tool, server: test.server, maria: test.tool == maria}
				server := database.Server{Engine: database.MySQL, Host: "db.example.com", TLS: mode}
				store := memory.New(time.Now)
				receipt, err := backup(t, store, tools, server)
				if err != nil {
					t.Fatal(err)
				}
				part := receipt.Point.Parts[0]
				if part.State != point.Stored || part.Revision != test.position || (test.position == "") != (len(part.Notes) == 1) {
					t.Errorf("%s at %q, %q", part.State, part.Revision, part.Notes)
				}
				_, from, err := store.Open(t.Context(), receipt.Point.ID)
				if err != nil {
					t.Fatal(err)
				}
				at := protect.Within(from, part.Name)
				m, err := database.ReadManifest(t.Context(), at)
				if err != nil || len(m.Files) != 1 || m.Files[0].Tables != 2 || len(m.Files[0].Databases) != 2 {
					t.Errorf("the dump says of itself %+v, %v", m, err)
				}
				if _, err := database.Restore(t.Context(), at, server, tools, database.RestoreOptions{}); err != nil {
					t.Fatal(err)
				}
				if tools.loaded.String() != tools.dumped.String() || strings.Contains(tools.loaded.String(), "GTID_PURGED") {
					t.Errorf("loaded\n%s\ndumped\n%s", &tools.loaded, &tools.dumped)
				}
			})
		}
	}
}
