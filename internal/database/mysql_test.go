package database_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/database/databasetest"
	"github.com/backstay/backstay/internal/point"
	"github.com/backstay/backstay/internal/point/memory"
	"github.com/backstay/backstay/internal/protect"
)

// odd is a schema of all that dumps have stumbled over.
const odd = `
CREATE DATABASE shop CHARACTER SET utf8mb4;
USE shop;
CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, customer VARCHAR(80) CHARACTER SET utf8mb4, photo VARBINARY(64), net DECIMAL(10,2),
  gross DECIMAL(10,2) AS (net * 1.19) STORED, half DECIMAL(10,2) AS (net / 2) VIRTUAL, flags BIT(9), at DATETIME(6) DEFAULT '2026-01-02 03:04:05.678901');
INSERT INTO orders (customer, photo, net, flags) VALUES ('Zoë 🦊', X'00FF0A275C1A0D', 12.50, b'101010101'), ('O''Brien\n-- Dump completed', NULL, -1, 0);
CREATE TABLE log (what TEXT) COMMENT 'line\n-- Current Database: ` + "`evil`" + `';
CREATE TRIGGER noted AFTER INSERT ON orders FOR EACH ROW INSERT INTO log VALUES (CONCAT('new ', NEW.customer));
CREATE USER clerk@localhost;
CREATE DEFINER=clerk@localhost SQL SECURITY INVOKER VIEW open_orders AS SELECT id, customer FROM orders WHERE net > 0;
DELIMITER //
CREATE DEFINER=clerk@localhost PROCEDURE total(OUT t DECIMAL(10,2))
BEGIN
  -- Current Database: ` + "`shop`" + `
  SELECT SUM(net) INTO t FROM orders;
END//
CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2//
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM log//
DELIMITER ;
CREATE DATABASE empty_one;
CREATE DATABASE ` + "`--all-databases`" + `;
CREATE TABLE ` + "`--all-databases`.`t;DROP DATABASE shop;--`" + ` (a INT);
CREATE DATABASE ` + "`a``b'c\"d\\\\e\nf;DROP DATABASE shop`" + `;
CREATE TABLE ` + "`a``b'c\"d\\\\e\nf;DROP DATABASE shop`.`x``y`" + ` (a INT);
INSERT INTO ` + "`a``b'c\"d\\\\e\nf;DROP DATABASE shop`.`x``y`" + ` VALUES (7);
`

// contents is all that MariaDB knows of its databases: the definitions, and a checksum of each table.
func contents(t *testing.T, s database.Server) string {
	t.Helper()
	const own = "('information_schema','performance_schema','mysql','sys')"
	tables := databasetest.SQL(t, s, "SELECT CONCAT('CHECKSUM TABLE `', REPLACE(TABLE_SCHEMA,'`','``'), '`.`', REPLACE(TABLE_NAME,'`','``'), '` EXTENDED;') "+
		"FROM information_schema.TABLES WHERE TABLE_TYPE='BASE TABLE' AND TABLE_SCHEMA NOT IN "+own+" ORDER BY 1")
	return databasetest.SQL(t, s, unescaped.Replace(tables)) + databasetest.SQL(t, s, "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA ORDER BY 1;"+
		"SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, GENERATION_EXPRESSION, CHARACTER_SET_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN "+own+" ORDER BY 1,2,ORDINAL_POSITION;"+
		"SELECT TRIGGER_SCHEMA, TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN "+own+" ORDER BY 1,2;"+
		"SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_DEFINITION, DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN "+own+" ORDER BY 1,2;"+
		"SELECT EVENT_SCHEMA, EVENT_NAME, EVENT_DEFINITION, STATUS FROM information_schema.EVENTS;"+
		"SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION, DEFINER, SECURITY_TYPE FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN "+own+" ORDER BY 1,2")
}

var unescaped = strings.NewReplacer(`\n`, "\n", `\\`, `\`)

// backup makes a point of servers.
func backup(t *testing.T, store protect.Store, r database.Runner, servers ...database.Server) (*point.Receipt, error) {
	t.Helper()
	src, err := database.NewSource("", r, servers...)
	if err != nil {
		t.Fatal(err)
	}
	return protect.Backup(context.Background(), store, src, "")
}

// restore brings a part back into a server.
func restore(t *testing.T, store protect.Store, receipt *point.Receipt, part string, to database.Server, replace bool) error {
	t.Helper()
	_, from, err := store.Open(context.Background(), receipt.Point.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, err = database.Restore(context.Background(), protect.Within(from, part), to, database.Local{}, database.RestoreOptions{Replace: replace})
	return err
}

func TestMySQLComesBackAsItWas(t *testing.T) {
	from := databasetest.Start(t, database.MySQL, database.ScratchOptions{Arguments: []string{"--log-bin"}})
	databasetest.SQL(t, from.Server, odd)
	want := contents(t, from.Server)
	store := memory.New(time.Now)
	receipt, err := backup(t, store, database.Local{}, from.Server)
	if err != nil {
		t.Fatal(err)
	}
	part := receipt.Point.Parts[0]
	if part.Captured == nil || !strings.Contains(part.Revision, "-bin.000001:") || !strings.Contains(part.Revision, " gtid:0-1-") {
		t.Errorf("the part is of %v, position %q, %q", part.Captured, part.Revision, part.Notes)
	}
	to := databasetest.Start(t, database.MySQL, database.ScratchOptions{})
	databasetest.SQL(t, to.Server, "CREATE DATABASE shop")
	if err := restore(t, store, receipt, part.Name, to.Server, false); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, to.Server); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
