package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The functions of the box.
const (
	// warmFunctions have warmWorkers each, all the time.
	warmFunctions, warmWorkers = 5, 10
	// coldFunctions end a second after each request.
	coldFunctions = 16
	// probeFunctions do, too; they are asked after faults.
	probeFunctions = 24
	// crowdFunctions have up to crowdWorkers each; they are overloaded together.
	crowdFunctions, crowdWorkers = 20, 3
	// changingFunctions have changingWorkers each, and are changed while they serve.
	changingFunctions, changingWorkers = 3, 2
)

func warmName(i int) string     { return fmt.Sprint("warm", i%warmFunctions) }
func coldName(i int) string     { return fmt.Sprint("cold", i%coldFunctions) }
func probeName(i int) string    { return fmt.Sprint("probe", i%probeFunctions) }
func crowdName(i int) string    { return fmt.Sprint("crowd", i%crowdFunctions) }
func changingName(i int) string { return fmt.Sprint("changing", i%changingFunctions) }

// configuration is the folder of functions.yml and what it names.
type configuration struct {
	dir string
	// small is a box with little in it.
	small bool
	// records is the URL that takes the records of events that have run.
	records string
	// clock: those of clockFunctions are in it.
	clock bool
	// change is another one each time that the changing functions are changed.
	change int
}

func (c *configuration) functions() string { return filepath.Join(c.dir, "functions.yml") }
func (c *configuration) routing() string   { return filepath.Join(c.dir, "routing.yml") }

// kept is how many workers each function has that has some all the time.
func (c *configuration) kept() map[string]int {
	kept := map[string]int{"runner": 1}
	for i := range warmFunctions {
		kept[warmName(i)] = warmWorkers
	}
	if c.small {
		return map[string]int{"runner": 1, "warm0": 2}
	}
	for i := range changingFunctions {
		kept[changingName(i)] = changingWorkers
	}
	kept["quiet"] = 1
	return kept
}

// warm are the functions of the stream warm, and how many workers they have together.
func (c *configuration) warm() (functions, workers int) {
	if c.small {
		return 1, 2
	}
	return warmFunctions, warmFunctions * warmWorkers
}

// write makes the files.
func (c *configuration) write() error {
	var functions, routes strings.Builder
	functions.WriteString("functions:\n")
	routes.WriteString("routes:\n")
	const chaos, echo = `image: "esb/lambda-chaos:latest"`, `image: "esb/lambda-echo:latest"`
	add := func(name, what, scaling string) {
		_, _ = fmt.Fprintf(&functions, "  %s: {%s, scaling: {%s}}\n", name, what, scaling)
		_, _ = fmt.Fprintf(&routes, "  - {path: /%s, method: POST, function: %s, auth: none}\n", name, name)
	}
	// A machine that is slow for a while has them wait, and does not refuse them.
	always := func(n int) string {
		return fmt.Sprintf("min_capacity: %d, max_capacity: %d, idle_timeout: 600, queue: 1000", n, n)
	}
	add("runner", fmt.Sprintf("%s, timeout: 30, async: {on_success: %q}", chaos, c.records), "min_capacity: 1, max_capacity: 2, idle_timeout: 5")
	kept := c.kept()
	for i := range warmFunctions {
		if n := kept[warmName(i)]; n > 0 {
			add(warmName(i), chaos+", timeout: 20, memory_size: 256", always(n))
		}
	}
	for i := range coldFunctions {
		add(coldName(i), echo+", timeout: 20, memory_size: 512", "max_capacity: 1, idle_timeout: 1")
	}
	for i := range probeFunctions {
		add(probeName(i), echo+", timeout: 20, memory_size: 512", "max_capacity: 1, idle_timeout: 1")
	}
	if !c.small {
		for i := range crowdFunctions {
			add(crowdName(i), chaos+", timeout: 60, memory_size: 512", fmt.Sprintf("max_capacity: %d, idle_timeout: 3", crowdWorkers))
		}
		for i := range changingFunctions {
			add(changingName(i), fmt.Sprintf("%s, timeout: 20, memory_size: 256, environment: {CHANGE: %q}", chaos, fmt.Sprint(c.change)), always(changingWorkers))
		}
		add("quiet", chaos+", timeout: 20, memory_size: 512", always(1))
		const bad = "code: ./bad, runtime: python3.11, handler: app.handler, timeout: "
		add("hog", bad+"60, memory_size: 3538", "max_capacity: 4, idle_timeout: 1")
		add("glutton", bad+"60, memory_size: 256", "max_capacity: 2, idle_timeout: 1")
		add("bomb", bad+"10, memory_size: 128", "max_capacity: 1, idle_timeout: 1")
		add("flood", bad+"60, memory_size: 1769", "max_capacity: 1, idle_timeout: 1")
		add("hoarder", bad+"60, memory_size: 512", "max_capacity: 1, idle_timeout: 1")
		if err := c.put("bad/app.py", badFunction); err != nil {
			return err
		}
	}
	if c.clock {
		more, moreRoutes := clockFunctions(c.records)
		functions.WriteString(more)
		routes.WriteString(moreRoutes)
	}
	if err := c.put("routing.yml", routes.String()); err != nil {
		return err
	}
	return c.put("functions.yml", functions.String())
}

// put writes a file as an editor does: a new one in the place of the old.
func (c *configuration) put(name, text string) error {
	path := filepath.Join(c.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// badFunction does what neighbours do not like.
const badFunction = `import json, os, time


def handler(event, context):
    order = json.loads(event["body"])
    end = time.time() + order.get("seconds", 0)
    if order["action"] == "burn":
        for _ in range(3):
            if os.fork() == 0:
                break
        while time.time() < end:
            pass
    elif order["action"] == "eat":
        kept = []
        while True:
            kept.append(b"x" * (8 << 20))
    elif order["action"] == "fork":
        while True:
            try:
                if os.fork() == 0:
                    continue
            except OSError:
                pass
    elif order["action"] == "print":
        line = "y" * 1000
        while time.time() < end:
            print(line)
    elif order["action"] == "hoard":
        try:
            with open("/tmp/hoard", "wb") as f:
                while time.time() < end:
                    f.write(b"z" * (1 << 20))
        except OSError:
            pass
    return {"statusCode": 200, "body": "done"}
`

// clockSchedules are the schedules of the function ticker, by what their events say.
var clockSchedules = map[string]string{"rate": "rate(1 minute)", "cron": "cron(* * * * ? *)"}

// clockFunctions are in the configuration while the clock is set.
func clockFunctions(records string) (functions, routes string) {
	const chaos = `image: "esb/lambda-chaos:latest", timeout: 20, memory_size: 256`
	var schedules []string
	for _, name := range []string{"rate", "cron"} {
		// As API Gateway's event, of which the function reads the body.
		schedules = append(schedules, fmt.Sprintf(`{name: chaos-%s, expression: %q, input: {of: %s, body: "{\"action\":\"ok\"}"}}`, name, clockSchedules[name], name))
	}
	return fmt.Sprintf("  idler: {%s, scaling: {max_capacity: 1, idle_timeout: 600}}\n", chaos) +
			fmt.Sprintf("  ticker: {%s, schedules: [%s], async: {on_success: %q}, scaling: {max_capacity: 2, idle_timeout: 1}}\n", chaos, strings.Join(schedules, ", "), records) +
			fmt.Sprintf("  retrier: {%s, async: {retries: 2, max_age: 3600, on_failure: %q, dead_letter: false}, scaling: {max_capacity: 2, idle_timeout: 1}}\n", chaos, records),
		"  - {path: /idler, method: POST, function: idler, auth: none}\n  - {path: /token, method: POST, function: warm0}\n"
}
