//go:build tools

package tools

import _ "github.com/go-task/task/v3/cmd/task" // what cmd/task compiles
