package app

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/edge-serverless-box/esb/agent/containerd"
	"github.com/edge-serverless-box/esb/agent/settings"
	"github.com/edge-serverless-box/esb/agent/storedb"
	"github.com/edge-serverless-box/esb/agent/supervisor"
)

// AbsentImages is the argument with which the agent's program says which images no archive has, and does nothing else.
const AbsentImages = "absent-images"

// UnreadArchive is the exit code of AbsentImages when an archive cannot be read; another one than 0 has nothing to do with archives.
const UnreadArchive = 3

// JudgeDatabase is the argument with which the agent's program has a process of its own look at databases, and says by its exit code
// what that has found: ExitDamaged, or 1 when it could not look.
const JudgeDatabase = "judge-database"

// ExitDamaged is the exit code for databases that are damaged.
const ExitDamaged = 3

// CheckDatabase is the argument with which the agent's program looks at a database, and does nothing else.
const CheckDatabase = "check-database"

// repair returns what is done before containerd is started: when its databases are damaged, they are set aside with all that they list,
// and its containers end.
func repair(s settings.Settings, log *slog.Logger) func(context.Context, supervisor.Stores) {
	program, err := os.Executable()
	if err != nil || filepath.Base(program) != "agent" {
		return nil // a test's, which has no such argument
	}
	return func(ctx context.Context, stores supervisor.Stores) {
		damage, err := storedb.Check(ctx, []string{program, CheckDatabase}, stores.Root, stores.State)
		if err != nil {
			log.WarnContext(ctx, "it is not known whether containerd's databases are whole", "error", err)
		}
		if damage == "" || ctx.Err() != nil {
			return
		}
		log.ErrorContext(ctx, "containerd's databases are damaged", "damage", damage)
		if err := containerd.Abandon(ctx, runtimeConfig(s, stores.Socket, nil, log), stores.State); err != nil {
			log.ErrorContext(ctx, "the containers of a damaged containerd cannot be ended", "error", err)
			return
		}
		now := time.Now()
		kept, err := storedb.SetAside(stores.Root, stores.State, now)
		if err != nil {
			log.ErrorContext(ctx, "the damaged databases of containerd cannot be set aside", "error", err)
			return
		}
		log.ErrorContext(ctx, storedb.Note(kept, now))
	}
}

// notes are what the operator should know of the agent.
func notes(s settings.Settings) []string {
	if s.ContainerdAddress != "" {
		return nil
	}
	return storedb.Notes(filepath.Join(s.Home, "containerd"), time.Now())
}
