package containerd

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/agent"
)

func TestMadeWith_NamesWhatHasChanged(t *testing.T) {
	base := Config{
		Region: "eu-west-1", AccountID: "123456789012", PIDsLimit: 1024, NoFile: 1024, LogRate: 1 << 20, LogDir: "/logs", TmpSizeMB: 512, TmpOnDisk: true,
		Environment: map[string]string{"AWS_ENDPOINT_URL_S3": "http://10.88.0.1:9000", "OTHER": "1"},
	}
	box := netip.MustParseAddr("10.88.0.1")
	open := func(change func(*Config)) *Runtime {
		cfg, box := base, box
		if change != nil {
			change(&cfg)
		}
		return &Runtime{marks: marksOf(cfg, box)}
	}
	spec := agent.ContainerSpec{Interface: agent.Supervisor}
	label := open(nil).madeWith(spec)
	assert.Less(t, len(label), 1024, "a label has room for some 4000 bytes")
	for want, change := range map[string]func(*Config){
		"region":   func(c *Config) { c.Region = "us-east-1" },
		"account":  func(c *Config) { c.AccountID = "1" },
		"pids":     func(c *Config) { c.PIDsLimit = 64 },
		"nofile":   func(c *Config) { c.NoFile = 64 },
		"log_rate": func(c *Config) { c.LogRate = 1 },
		"logs":     func(c *Config) { c.LogDir = "/elsewhere" },
		"tmp":      func(c *Config) { c.TmpSizeMB = 1024 },
		"environment": func(c *Config) {
			c.Environment = map[string]string{"AWS_ENDPOINT_URL_S3": "http://elsewhere:9000", "OTHER": "1"}
		},
	} {
		assert.Equal(t, []string{want}, open(change).differs(label), want)
	}
	assert.Equal(t, []string{"tmp"}, open(func(c *Config) { c.TmpOnDisk = false }).differs(label))
	assert.Equal(t, []string{"box"}, (&Runtime{marks: marksOf(base, netip.MustParseAddr("10.99.0.1"))}).differs(label))

	// What has no part in its containers makes none of them outdated.
	assert.Empty(t, open(nil).differs(label))
	assert.Empty(t, open(func(c *Config) {
		c.CPUWeight, c.MaxStarts, c.ImageStoreMaxMB = 7, 7, 7
		c.Environment = map[string]string{"OTHER": "1", "AWS_ENDPOINT_URL_S3": "http://10.88.0.1:9000"}
	}).differs(label))
	// The function's own size of /tmp counts, and RIE's log has no bound.
	own := open(nil).madeWith(agent.ContainerSpec{Interface: agent.RIE, EphemeralStorageMB: 512})
	assert.Empty(t, open(func(c *Config) { c.TmpSizeMB, c.LogRate = 1024, 1 }).differs(own))
	// Nothing is known of what an earlier agent has made, nor what a later one may have meant.
	assert.Empty(t, open(func(c *Config) { c.Region = "us-east-1" }).differs(""))
	assert.Empty(t, open(nil).differs("something=01020304"))
}
