package function

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backstay/backstay/internal/blueprint"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/kube"
)

// once is the script that runs a command, unless an earlier process of ours began it in this container: then it waits for that one's end,
// and ends as it did. Its arguments are a directory that marks the beginning, and the command. Where the mark cannot be made the command
// is run without.
const once = `mark=$1
shift
if mkdir "$mark" 2>/dev/null; then
	echo $$ >"$mark/process"
	"$@"
	status=$?
	echo $status >"$mark/now" && mv "$mark/now" "$mark/status"
	exit $status
fi
[ -d "$mark" ] || exec "$@"
sleep 1 # it may be about to say which process it is
until [ -f "$mark/status" ]; do
	kill -0 "$(cat "$mark/process")" 2>/dev/null || [ -f "$mark/status" ] || exit 217
	sleep 1
done
exit "$(cat "$mark/status")"
`

const (
	// killed is the status of once for a command that was begun, and that is gone without having ended.
	killed = 217
	// unmarkTime is what it may take to remove a mark.
	unmarkTime = 30 * time.Second
)

// execOnce runs commands that are to run once, though the process that runs them be killed: it takes up what that began. Containers
// without a shell have no way to tell, and run it again.
func (o Options) execOnce(ctx context.Context, c blueprint.Call, commands []kube.Command) ([]kube.Command, error) {
	mark := "/dev/shm/backstay-" + c.ID
	marked := slices.Clone(commands)
	for i, command := range commands {
		shell := command
		shell.Args = []string{"sh", "-c", ":"}
		switch err := o.Cluster.Exec(ctx, shell); {
		case err == nil:
			marked[i].Args = slices.Concat([]string{"sh", "-c", once, "backstay", mark}, command.Args)
		case !noShell(err):
			return nil, fault.Wrap(describe(command), nil, err, "")
		}
	}
	c.After(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, unmarkTime)
		defer cancel()
		for _, command := range marked {
			if len(underMark(command.Args)) == len(command.Args) {
				continue
			}
			command.Args = []string{"rm", "-rf", mark}
			if err := o.Cluster.Exec(ctx, command); err != nil {
				c.Log(fmt.Sprintf("%s may still be in pod %s: %v", mark, command.Pod, err)) // a few bytes, until the pod ends
			}
		}
		return nil
	})
	return marked, nil
}

// noShell reports whether a container could not run sh.
func noShell(err error) bool {
	var ended *kube.Ended
	return errors.As(err, &ended) || strings.Contains(err.Error(), "executable file not found") || strings.Contains(err.Error(), "no such file")
}

// underMark is the command that once runs; any other as it is.
func underMark(args []string) []string {
	const before = 5 // sh -c once backstay MARK
	if len(args) > before && args[2] == once {
		return args[before:]
	}
	return args
}

// ofCommand is what came of a command, where once ran it.
func ofCommand(args []string, err error) error {
	var ended *kube.Ended
	under := underMark(args)
	if len(under) == len(args) || !errors.As(err, &ended) {
		return err
	}
	if ended.Status == killed {
		return fault.New("", fault.ErrRefused, "it was begun by a process of Backstay that was killed, and it did not come to its end", "")
	}
	return fault.Wrap("", fault.ErrRefused, &kube.Ended{Program: under[0], Status: ended.Status, Said: ended.Said}, "")
}
