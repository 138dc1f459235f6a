package install

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/edge-serverless-box/esb/guard/wholefile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/release"
)

// Box is the box of an installation, as an upgrade needs it.
type Box interface {
	// Relieve has nobody else start the services until Done of what it returns.
	Relieve(ctx context.Context) (Relief, error)
	// Down stops it and removes what it has made on the machine.
	Down(ctx context.Context) error
}

// Relief is the time of an upgrade.
type Relief interface {
	// Runs says whether there is anything to take over.
	Runs() bool
	// Take has the programs of the present release take the services over, and returns when they have served for a while.
	Take(ctx context.Context) error
	// Done gives the services to their supervisor again.
	Done(ctx context.Context) error
	// Lost says, after Done, whether the supervisor has ended when it became the program of the present release.
	Lost() bool
}

// Upgrade makes a release that is in the installation the present one, and has the box, if it runs, go on with its programs without that a
// request fails. When it does not serve with them, it goes back to those of before, and the error says why.
func (m *Machine) Upgrade(ctx context.Context, version string) error {
	l := m.Layout
	fail := func(err error) error {
		return errors.Join(&native.Problem{
			What: fmt.Sprintf("the release %s cannot take the box over: %v", version, err),
			Do:   "Cure what it names, or take another release. Nothing has changed.",
		})
	}
	if _, err := release.Open(l.Dir(version)); err != nil {
		return err
	}
	if err := m.Console.Step("asking the release "+version+" whether it fits", func() error { return m.Fit(ctx, l.Dir(version)) }); err != nil {
		return fail(err)
	}
	box, err := m.Open()
	if err != nil {
		return err
	}
	relief, err := box.Relieve(ctx)
	if err != nil {
		return err
	}
	// From here on the box is given back, whatever happens.
	undone := context.WithoutCancel(ctx)
	before, err := m.exchange(ctx, relief, version)
	lost := relief.Done(undone)
	if err == nil && before != "" && relief.Lost() {
		return m.abandon(undone, version, before, lost)
	}
	return errors.Join(err, lost)
}

// abandon has the release of before be the present one again, when the supervisor cannot live with the new one: whoever starts it again
// starts that of before, and would start one without end that ends at once.
func (m *Machine) abandon(ctx context.Context, version, before string, reason error) error {
	ours := m.unitIsOurs(ctx, version)
	if err := m.Layout.Switch(before); err != nil {
		return errors.Join(reason, err)
	}
	if ours {
		if err := m.renewUnit(ctx, before); err != nil {
			m.Console.Printf("==> warning: the unit of systemd stays as it is: %v", err)
		}
	}
	return &native.Problem{
		What: fmt.Sprintf("the `esb run` of the release %s does not live: %v", version, reason),
		Do:   fmt.Sprintf("%s is the present release again. See that `esb run` runs again: systemd starts it by itself; start it where nobody does.", before),
	}
}

// exchange does the work of Upgrade while nobody else starts the services. It returns the release of before when another one is the
// present one now.
func (m *Machine) exchange(ctx context.Context, relief Relief, version string) (string, error) {
	l := m.Layout
	if err := l.Undo(); err != nil { // what was broken off before
		return "", err
	}
	before, err := l.CurrentVersion()
	if err != nil {
		return "", err
	}
	if before == version {
		m.Console.Printf("==> %s is the present release already", version)
		return "", nil
	}
	oldUnit := m.unitIsOurs(ctx, before)
	if err := l.Try(version); err != nil {
		return "", err
	}
	if relief.Runs() {
		err := m.Console.Step(fmt.Sprintf("the programs of %s take over from those of %s", version, before), func() error { return relief.Take(ctx) })
		if err != nil {
			return "", m.goBack(context.WithoutCancel(ctx), relief, version, before, err)
		}
	}
	if err := l.Accept(); err != nil {
		return "", err
	}
	if oldUnit {
		if err := m.renewUnit(ctx, version); err != nil {
			m.Console.Printf("==> warning: the unit of systemd stays as it was: %v", err)
		}
	}
	if err := l.Prune(); err != nil {
		m.Console.Printf("==> warning: %v", err)
	}
	m.Console.Printf("==> %s is the present release; `esb rollback` goes back to %s", version, before)
	return before, nil
}

// goBack has the release of before take the box over again.
func (m *Machine) goBack(ctx context.Context, relief Relief, version, before string, reason error) error {
	m.Console.Printf("==> going back to %s", before)
	if err := m.Layout.Undo(); err != nil {
		return errors.Join(reason, err)
	}
	err := m.Console.Step(fmt.Sprintf("the programs of %s take the box over again", before), func() error { return relief.Take(ctx) })
	if err != nil {
		return errors.Join(
			&native.Problem{What: fmt.Sprintf("the box does not serve with the release %s: %v", version, reason), Do: "See below what became of the box."},
			&native.Problem{What: fmt.Sprintf("nor does it with %s again, the release of before: %v", before, err), Do: "Cure what it names, and `esb up`, or `systemctl restart esb`."})
	}
	return &native.Problem{
		What: fmt.Sprintf("the box does not serve with the release %s: %v", version, reason),
		Do:   fmt.Sprintf("It went back to %s by itself, and serves with that. Cure what the lines above name, or take another release.", before),
	}
}

// Rollback goes back to the release of before.
func (m *Machine) Rollback(ctx context.Context) error {
	previous, err := m.Layout.PreviousVersion()
	if err != nil {
		return err
	}
	if previous == "" || !exists(m.Layout.Dir(previous)) {
		return &native.Problem{What: "there is no release of before in " + m.Layout.Base(), Do: "Bring the one that you want with `esb upgrade`."}
	}
	return m.Upgrade(ctx, previous)
}

// unitIsOurs says whether the unit is as a release has made it, and nobody has changed it since.
func (m *Machine) unitIsOurs(ctx context.Context, version string) bool {
	have, err := os.ReadFile(m.Layout.UnitFile())
	if err != nil {
		return false
	}
	made, err := m.UnitOf(ctx, m.Layout.Dir(version))
	return err == nil && made == string(have)
}

// renewUnit writes the unit of a release. What runs is not touched by that.
func (m *Machine) renewUnit(ctx context.Context, version string) error {
	made, err := m.UnitOf(ctx, m.Layout.Dir(version))
	if err != nil {
		return err
	}
	have, err := os.ReadFile(m.Layout.UnitFile())
	if err != nil || string(have) == made {
		return err
	}
	if err := wholefile.Write(m.Layout.UnitFile(), []byte(made), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", m.Layout.UnitFile(), err)
	}
	if m.Systemctl == nil {
		return nil
	}
	return m.Systemctl(ctx, "daemon-reload")
}
