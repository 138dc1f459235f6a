module github.com/edge-serverless-box/esb/native

go 1.26.0

require github.com/edge-serverless-box/esb/api v0.0.0

require (
	github.com/stretchr/testify v1.12.1 // indirect
	golang.org/x/net v0.53.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.36.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260414002931-afd174a4e478 // indirect
	google.golang.org/grpc v1.82.1 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/edge-serverless-box/esb/api => ../api
