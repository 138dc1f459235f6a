package lambdainit

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseUser(t *testing.T) {
	for text, want := range map[string]*User{
		"993:990":     {UID: 993, GID: 990, Groups: []uint32{}},
		"1:2:3,65535": {UID: 1, GID: 2, Groups: []uint32{3, 65535}},
		"":            nil, "993": nil, "a:b": nil, "1:2:": nil, "1:2:3:4": nil, "-1:2": nil, "4294967296:1": nil,
	} {
		got, err := parseUser(text)
		assert.Equal(t, want, got, text)
		assert.Equal(t, want == nil, err != nil, text)
	}
}

func TestHome_IsThatOfTheImagesUser(t *testing.T) {
	passwd := filepath.Join(t.TempDir(), "passwd")
	require.NoError(t, os.WriteFile(passwd, []byte("root:x:0:0::/root:/bin/sh\nbad\napp:x:1000:1000:App:/home/app:/bin/sh\nodd:x:7:7::relative:\n"), 0o600))
	for uid, want := range map[uint32]string{1000: "/home/app", 993: "/", 7: "/"} {
		assert.Equal(t, want, (&User{UID: uid}).home(passwd))
	}
	assert.Equal(t, "/", (&User{}).home(passwd+".none"))
	env := []string{"HOME=/root", "A=1"}
	assert.Equal(t, []string{"A=1"}, withoutHome(env))
	assert.Equal(t, "HOME=/root", env[0], "what it was given is left as it is")
}
