package agentclient_test

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// proxied counts the connections to the proxy that the environment of these tests names. net/http reads that once, so that it must
// be there from the beginning.
var proxied atomic.Int32

func TestMain(m *testing.M) {
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		_ = os.Setenv(name, "http://"+proxy.Addr().String())
	}
	go func() {
		for {
			conn, err := proxy.Accept()
			if err != nil {
				return
			}
			proxied.Add(1)
			_ = conn.Close()
		}
	}()
	os.Exit(m.Run())
}
