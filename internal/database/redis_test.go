package database_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backstay/backstay/internal/database"
	"github.com/backstay/backstay/internal/database/databasetest"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/point/memory"
)

// everyType is a value of each type, and in each of the ways in which Redis writes them.
func everyType() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`SET small 7`)
	line(`SET medium 30000`)
	line(`SET large -2000000000`)
	line(`SET binary "\x00\xff\r\n$3\r\n"`)
	line(`SET %s %s`, strings.Repeat("key", 50), strings.Repeat("value ", 1)+strings.Repeat("x", 3))
	line(`SET compressed %s`, strings.Repeat("abc", 3000))
	line(`SET 12345 key`)
	line(`SET expiring soon PXAT 4102444800000`)
	for i := range 400 {
		line(`RPUSH list element-%d-%s`, i, strings.Repeat("y", i))
		line(`SADD strings member-%d`, i)
		line(`SADD numbers %d`, i)
		line(`ZADD scores %d.5 member-%d`, i, i)
		line(`HSET hash field-%d value-%d`, i, i)
		line(`XADD stream %d-1 field %d`, i+1, i)
	}
	line(`RPUSH short a b c`)
	line(`SADD few 1 2 3`)
	line(`SADD words a b c`)
	line(`ZADD ranks 1 a inf b -inf c`)
	line(`HSET map a 1 b 2`)
	line(`PFADD unique a b c d`)
	line(`GEOADD places 13.361389 38.115556 Palermo`)
	line(`XGROUP CREATE stream readers 0`)
	line(`XREADGROUP GROUP readers one COUNT 5 STREAMS stream >`)
	line(`XDEL stream 3-1`)
	line(`FUNCTION LOAD "#!lua name=mine\n redis.register_function('twice', function(keys, args) return args[1] * 2 end)"`)
	line(`SELECT 5`)
	line(`SET other database`)
	return b.String()
}

const redisContents = "DEBUG DIGEST\nDBSIZE\nFUNCTION LIST WITHCODE\nPEXPIRETIME expiring\nXINFO STREAM stream FULL COUNT 3\nSELECT 5\nDBSIZE\n"

func TestRedisComesBackAsItWas(t *testing.T) {
	debug := database.ScratchOptions{Arguments: []string{"--enable-debug-command", "local", "--list-max-listpack-size", "8"}}
	from := databasetest.Start(t, database.Redis, debug)
	databasetest.RedisCLI(t, from.Server, everyType())
	want := databasetest.RedisCLI(t, from.Server, redisContents)
	store := memory.New(time.Now)
	receipt, err := backup(t, store, database.Local{}, from.Server)
	if err != nil {
		t.Fatal(err)
	}
	part := receipt.Point.Parts[0]
	if part.Captured == nil || !strings.HasPrefix(part.Revision, "replication:") {
		t.Errorf("the part is of %v, position %q, %q", part.Captured, part.Revision, part.Notes)
	}
	to := databasetest.Start(t, database.Redis, debug)
	if err := restore(t, store, receipt, part.Name, to.Server, false); err != nil {
		t.Fatal(err)
	}
	if got := databasetest.RedisCLI(t, to.Server, redisContents); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := restore(t, store, receipt, part.Name, to.Server, false); fault.Of(err).Exit != 6 {
		t.Errorf("over what is there: %v, want it refused", err)
	}
	databasetest.RedisCLI(t, to.Server, "SET stray 1")
	if err := restore(t, store, receipt, part.Name, to.Server, true); err != nil {
		t.Fatal(err)
	}
	if got := databasetest.RedisCLI(t, to.Server, redisContents); got != want {
		t.Errorf("replaced: got\n%s\nwant\n%s", got, want)
	}
}
