package lambdainit

// OverwriteArguments is for tests, where the kernel has something better.
var OverwriteArguments = overwriteArguments
