module github.com/edge-serverless-box/esb/functions

go 1.26.0

require (
	github.com/aws/aws-lambda-go v1.55.1 // indirect
	github.com/google/go-containerregistry v0.22.1 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
)
