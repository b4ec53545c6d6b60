package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backstay/backstay/internal/evidence"
	"github.com/backstay/backstay/internal/fault"
	"github.com/backstay/backstay/internal/vault"
)

const evidenceHelp = `
Evidence is what Backstay says of the points of a vault: that they were made, what drills found, and that they were deleted. Each
statement is signed, and names the ones before it, so that none can be altered, dropped or moved without a trace.`

func newEvidenceCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "evidence",
		GroupID: groupKeeping,
		Short:   "Show, and check, what was done to points",
		Long:    strings.TrimSpace(evidenceHelp),
		Args:    subcommandOnly,
		RunE:    showHelp,
	}
	cmd.AddCommand(newEvidenceExportCommand(a), newEvidenceVerifyCommand(a), newEvidenceKeyCommand(a))
	return cmd
}

const evidenceExportHelp = `
Export writes all statements as a document: one DSSE envelope a line, each after those that it follows, and a last line, signed too, by
which every change to the lines before it shows. The statements are checked first, against each other and against the points of the
vault; what is wrong is said, and the document is written all the same.`

func newEvidenceExportCommand(a *app) *cobra.Command {
	var to string
	var keys []string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all statements, for auditors",
		Long: exits(evidenceExportHelp, "3   some statements are not signed", "6   the file is there already",
			"7   statements and points do not fit together"),
		Example: "  backstay evidence export --to evidence.ndjson",
		Args:    takes(0, 0),
		RunE:    a.runs(func(ctx context.Context, _ []string) error { return a.exportEvidence(ctx, to, keys) }),
	}
	cmd.Flags().StringVar(&to, "to", "", "write to `FILE`, which must not exist (default: standard output)")
	bindEvidenceKeys(cmd, &keys)
	return cmd
}

func bindEvidenceKeys(cmd *cobra.Command, keys *[]string) {
	cmd.Flags().StringArrayVar(keys, "key", nil, "also believe what the public keys in `FILE` prove; may be repeated")
}

func (a *app) exportEvidence(ctx context.Context, to string, keyFiles []string) error {
	key, err := a.evidenceKey()
	if err != nil {
		return err
	}
	keys, err := publicKeys(keyFiles)
	if err != nil {
		return err
	}
	return a.withVault(ctx, toRead, func(v *vault.Vault) error {
		e, err := v.Evidence(ctx)
		if err != nil {
			return err
		}
		var document bytes.Buffer
		if err := evidence.Write(&document, e.Vault, e.Statements, key, a.Clock()); err != nil {
			return err
		}
		if err := a.putEvidence(to, document.Bytes()); err != nil {
			return err
		}
		return verdictOf("evidence of "+e.Vault, e.Report(append(keys, key.Public())))
	})
}

// putEvidence writes a document where it is wanted. A file is there only when it is whole.
func (a *app) putEvidence(to string, document []byte) error {
	if to == "" {
		_, err := a.Stdout.Write(document)
		return unwritten(err)
	}
	const op = "write evidence"
	err := writeNew(to, document)
	switch {
	case errors.Is(err, os.ErrExist):
		return fault.Wrap(op, fault.ErrExists, err, "name another file: what was said before is not overwritten")
	case err != nil:
		return fault.Wrap(op, fault.ErrDenied, err, "")
	}
	return nil
}

const evidenceVerifyHelp = `
Verify checks a document that export wrote: it needs no vault and no network, only the public keys of those who may sign. Without a
file it checks the statements in the vault, and its points against them.

A document is whole in itself: that it is the newest one, it cannot prove. With --after it must have all that an earlier one has, so
that statements cannot be taken back.`

type evidenceVerifyOptions struct {
	keys  []string
	after string
}

func newEvidenceVerifyCommand(a *app) *cobra.Command {
	var o evidenceVerifyOptions
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check statements, also without the vault",
		Long:  exits(evidenceVerifyHelp, "3   some statements are not signed", "7   something was altered, dropped, moved or added"),
		Example: "  backstay evidence verify\n" +
			"  backstay evidence verify evidence.ndjson --key backstay.pub --after last-year.ndjson",
		Args: takes(0, 1),
		RunE: a.runs(func(ctx context.Context, args []string) error {
			if len(args) == 1 {
				return a.verifyEvidenceFile(args[0], o)
			}
			return a.verifyEvidence(ctx, o)
		}),
	}
	bindEvidenceKeys(cmd, &o.keys)
	cmd.Flags().StringVar(&o.after, "after", "", "have all statements of the earlier document in `FILE`")
	return cmd
}

func (a *app) verifyEvidence(ctx context.Context, o evidenceVerifyOptions) error {
	keys, err := a.believed(o.keys)
	if err != nil {
		return err
	}
	return a.withVault(ctx, toRead, func(v *vault.Vault) error {
		e, err := v.Evidence(ctx)
		if err != nil {
			return err
		}
		r := e.Report(keys)
		if err := after(r, e.Statements, keys, o.after); err != nil {
			return err
		}
		return a.tellEvidence("evidence of vault", r)
	})
}

func (a *app) verifyEvidenceFile(file string, o evidenceVerifyOptions) error {
	keys, err := a.believed(o.keys)
	if err != nil {
		return err
	}
	statements, r, err := readEvidence(file, keys)
	if err != nil {
		return err
	}
	if err := after(r, statements, keys, o.after); err != nil {
		return err
	}
	return a.tellEvidence(file, r)
}

// after holds what is there against an earlier document. One that is not good itself proves nothing.
func after(r *evidence.Report, statements []*evidence.Statement, keys []evidence.PublicKey, file string) error {
	if file == "" {
		return nil
	}
	earlier, before, err := readEvidence(file, keys)
	if err != nil {
		return err
	}
	if len(before.Faults) > 0 {
		return fault.New("read "+file, fault.ErrCorrupt, before.Faults[0].String(), "")
	}
	r.Contains(statements, earlier)
	return nil
}

func readEvidence(file string, keys []evidence.PublicKey) ([]*evidence.Statement, *evidence.Report, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fault.Wrap("read evidence", fault.ErrNotFound, err, "`backstay evidence export` writes it")
	}
	if err != nil {
		return nil, nil, fault.Wrap("read evidence", fault.ErrDenied, err, "")
	}
	defer f.Close() //nolint:errcheck // opened for reading
	statements, r, err := evidence.Read(f, keys)
	return statements, r, fault.Wrap("read "+file, fault.ErrInvalid, err, "")
}

// believed is the keys that prove something: those named, else one's own.
func (a *app) believed(files []string) ([]evidence.PublicKey, error) {
	if len(files) > 0 {
		return publicKeys(files)
	}
	key, err := a.ownEvidenceKey()
	if err != nil {
		return nil, fault.Wrap("check evidence", nil, err, "give --key with the file of a public key")
	}
	return []evidence.PublicKey{key.Public()}, nil
}

func publicKeys(files []string) (keys []evidence.PublicKey, err error) {
	for _, file := range files {
		text, err := readKeyFile(file)
		if err != nil {
			return nil, err
		}
		some, err := evidence.ParsePublicKeys(text)
		if err != nil {
			return nil, fault.Wrap(file, nil, err, "")
		}
		keys = append(keys, some...)
	}
	return keys, nil
}

// evidenceDocument is what `evidence verify --json` prints.
type evidenceDocument struct {
	Version int `json:"version"`
	*evidence.Report
}

func (a *app) tellEvidence(what string, r *evidence.Report) error {
	verdict := verdictOf(what, r)
	if a.global.json {
		return errors.Join(verdict, a.document(evidenceDocument{documentVersion, r}))
	}
	for _, f := range r.Faults {
		a.say("fault: %s", f)
	}
	for _, n := range r.Notes {
		a.say("note: %s", n)
	}
	for _, hash := range r.Heads {
		a.say("newest: %s", hash)
	}
	word := "good"
	if verdict != nil {
		word = "not good"
	}
	if r.Statements == 0 {
		a.say("%s: no statement", word)
		return verdict
	}
	a.say("%s: %s of %s, %d of them deleted, from %s to %s UTC, signed with %s", word,
		plural(int64(r.Statements), "statement", "statements"), plural(int64(r.Points), "point", "points"), r.Deleted,
		stamp(r.From), stamp(r.To), plural(int64(len(r.Signers)), "key", "keys"))
	return verdict
}

// verdictOf is the error about evidence that is not good.
func verdictOf(what string, r *evidence.Report) error {
	switch {
	case len(r.Faults) > 0:
		return fault.New(what, fault.ErrCorrupt, plural(int64(len(r.Faults)), "fault", "faults")+": "+r.Faults[0].String(), "")
	case len(r.Unsigned) > 0:
		return fault.New(what, fault.ErrIncomplete, plural(int64(len(r.Unsigned)), "statement is", "statements are")+" not signed",
			"they were made without a key; docs/evidence.md says when")
	}
	return nil
}

const evidenceKeyHelp = `
Key prints the public key that checks what is signed here, in PEM. The private key is made on first use and kept beside the
configuration, in evidence.key. Give the public key to those who check, by another way than the vault.`

func newEvidenceKeyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "key",
		Short:   "Print the public key that checks what is signed here",
		Long:    exits(evidenceKeyHelp),
		Example: "  backstay evidence key > backstay.pub",
		Args:    takes(0, 0),
		RunE:    a.runs(func(context.Context, []string) error { return a.showEvidenceKey() }),
	}
}

// evidenceKeyDocument is what `evidence key --json` prints.
type evidenceKeyDocument struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	Public  string `json:"public"` // PEM
}

func (a *app) showEvidenceKey() error {
	key, err := a.evidenceKey()
	if err != nil {
		return err
	}
	public := key.Public()
	if a.global.json {
		return a.document(evidenceKeyDocument{documentVersion, public.ID(), string(public.PEM())})
	}
	_, err = a.Stdout.Write(public.PEM())
	return unwritten(err)
}

// readKeyFile reads a file of limited size.
func readKeyFile(file string) ([]byte, error) {
	op := "read key " + file
	f, err := os.Open(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fault.Wrap(op, fault.ErrNotFound, err, "")
	case err != nil:
		return nil, fault.Wrap(op, fault.ErrDenied, err, "")
	}
	defer f.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, 128<<10))
	return text, fault.Wrap(op, fault.ErrInvalid, err, "")
}
