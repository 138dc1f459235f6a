package lambdainit

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWrapped_EndsWithTheRuntimesClient(t *testing.T) {
	for _, c := range []struct {
		wrapper       string
		command, want []string
	}{
		{"", []string{"/usr/bin/node", "/var/runtime/bootstrap.js", "app.handler"}, []string{"/usr/bin/node", "/var/runtime/bootstrap.js", "app.handler"}},
		{"/opt/w", []string{"/usr/bin/node", "/var/runtime/bootstrap.js", "app.handler"}, []string{"/opt/w", "/usr/bin/node", "/var/runtime/bootstrap.js"}},
		{"w", []string{"/usr/bin/python3.11", "-S", "/var/runtime/bootstrap.pyc", "app.handler"}, []string{"./w", "/usr/bin/python3.11", "-S", "/var/runtime/bootstrap.pyc"}},
		{"/opt/w", []string{"/var/task/other", "x"}, []string{"/opt/w", "/var/task/other", "x"}},
	} {
		cfg := Config{Wrapper: c.wrapper, Command: c.command}
		assert.Equal(t, c.want, cfg.wrapped())
		assert.Equal(t, c.command, cfg.Command)
	}
}
