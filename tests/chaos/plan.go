package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

// standardMinutes is how long a run takes without a setting, on two cores that do nothing else.
const standardMinutes = 12

// longChurn is how many containers a long run makes.
const longChurn = 1000

// plan is how much is done in a run.
type plan struct {
	// minutes (ESB_CHAOS_MINUTES) is about how long it takes. What goes on for a time, and how often things are done, follows it.
	minutes float64
	// rounds (ESB_CHAOS_ROUNDS) is how often the power is lost; without it, it follows minutes: 5 in the standard ones, or fewer on a
	// slow machine.
	rounds int
	// allRounds: they were asked for.
	allRounds bool
	// seed (ESB_CHAOS_SEED) decides what is hit when.
	seed uint64
	// strict (ESB_CHAOS_STRICT=true) has times and ratios fail the test, which otherwise are said alone: they hold where the machine
	// does nothing else. Functions have the CPU weight that they have by default then.
	strict bool
	// churn (ESB_CHAOS_CHURN) is how many containers come and go one after the other. Without it, it follows minutes: as many as there
	// is time for, and longChurn in a run that is twice as long as a standard one, or longer.
	churn int
	// clock (ESB_CHAOS_CLOCK=true) has the clock of the whole machine be set, two hours forward and back. It is set right at the end,
	// however that comes, but whatever else runs on the machine goes through it as well.
	clock bool
}

// readPlan reads the settings by a function such as os.Getenv.
func readPlan(setting func(string) string) (plan, error) {
	p := plan{minutes: standardMinutes, seed: uint64(time.Now().UnixNano()) % 1_000_000}
	if text := setting("ESB_CHAOS_MINUTES"); text != "" {
		minutes, err := strconv.ParseFloat(text, 64)
		if err != nil || minutes < 1 || minutes > 24*60 {
			return plan{}, fmt.Errorf("ESB_CHAOS_MINUTES: must be 1 to 1440, got %q", text)
		}
		p.minutes = minutes
	}
	p.rounds = p.times(5, 1, 100)
	if text := setting("ESB_CHAOS_ROUNDS"); text != "" {
		rounds, err := strconv.Atoi(text)
		if err != nil || rounds < 0 || rounds > 1000 {
			return plan{}, fmt.Errorf("ESB_CHAOS_ROUNDS: must be 0 to 1000, got %q", text)
		}
		p.rounds, p.allRounds = rounds, true
	}
	if text := setting("ESB_CHAOS_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return plan{}, fmt.Errorf("ESB_CHAOS_SEED: must be a number, got %q", text)
		}
		p.seed = seed
	}
	if p.minutes >= 2*standardMinutes {
		p.churn = longChurn
	}
	if text := setting("ESB_CHAOS_CHURN"); text != "" {
		churn, err := strconv.Atoi(text)
		if err != nil || churn < 0 || churn > 100_000 {
			return plan{}, fmt.Errorf("ESB_CHAOS_CHURN: must be 0 to 100000, got %q", text)
		}
		p.churn = churn
	}
	for name, to := range map[string]*bool{"ESB_CHAOS_STRICT": &p.strict, "ESB_CHAOS_CLOCK": &p.clock} {
		if text := setting(name); text != "" {
			value, err := strconv.ParseBool(text)
			if err != nil {
				return plan{}, fmt.Errorf("%s: must be true or false, got %q", name, text)
			}
			*to = value
		}
	}
	return p, nil
}

// times is how often something is done that is done n times in a standard run.
func (p plan) times(n, least, most int) int {
	return min(max(int(float64(n)*p.minutes/standardMinutes), least), most)
}

// lasts is how long something goes on that takes d in a standard run.
func (p plan) lasts(d, least, most time.Duration) time.Duration {
	return min(max(time.Duration(float64(d)*p.minutes/standardMinutes), least), most)
}

// late is true when more than a part of the run's time is over: what is done several times is done less often then.
func (p plan) late(began time.Time, part float64) bool {
	return time.Since(began) > time.Duration(part*p.minutes*float64(time.Minute))
}

// random is a source of its own for each part, so that one part alone does what it does in a whole run.
func (p plan) random(part uint64) *rand.Rand { return rand.New(rand.NewPCG(p.seed, part)) }

func (p plan) String() string {
	churn := "some"
	if p.churn > 0 {
		churn = strconv.Itoa(p.churn)
	}
	return fmt.Sprintf("seed %d (ESB_CHAOS_SEED), %g minutes (ESB_CHAOS_MINUTES), %d power losses (ESB_CHAOS_ROUNDS), %s containers (ESB_CHAOS_CHURN), times fail: %t (ESB_CHAOS_STRICT), clock: %t (ESB_CHAOS_CLOCK)",
		p.seed, p.minutes, p.rounds, churn, p.strict, p.clock)
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil || len(text) < 4 {
		return "?"
	}
	var load string
	_, _ = fmt.Sscan(string(text), &load)
	return load
}
