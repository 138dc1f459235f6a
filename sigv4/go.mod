module github.com/edge-serverless-box/esb/sigv4

go 1.26.0

require (
	github.com/aws/aws-sdk-go-v2 v1.47.7
	github.com/edge-serverless-box/esb/guard v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/aws/smithy-go v1.28.8 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace github.com/edge-serverless-box/esb/guard => ../guard
