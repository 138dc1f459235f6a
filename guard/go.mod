module github.com/edge-serverless-box/esb/guard

go 1.26.0

require github.com/stretchr/testify v1.12.1

require github.com/vishvananda/netns v0.0.5 // indirect

require (
	github.com/vishvananda/netlink v1.3.1
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.50.0
)
