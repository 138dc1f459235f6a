# Images of esb: docker buildx bake [target...]. Variables are set by environment variables of the same names.

# Repository and tag of the images.
variable "IMAGE_PREFIX" { default = "esb" }
variable "VERSION" { default = "dev" }

# "compile" builds the programs in Docker, "local" takes those of `go tool task build` from .esb.
variable "BIN_SOURCE" { default = "compile" }

# Another module proxy, and a file of CA certificates, for building in a network of its own. Empty: Go's defaults.
variable "GOPROXY" { default = "" }
variable "GOSUMDB" { default = "" }
variable "GONOSUMDB" { default = "" }
variable "GOPRIVATE" { default = "" }
variable "CA_FILE" { default = "" }

# Base images of a registry of one's own, or by digest (docker/digests). Empty: those that the Dockerfile names.
variable "DEBIAN_IMAGE" { default = "" }
variable "GO_IMAGE" { default = "" }

# What the images were made of, and when (RFC 3339), for their labels. Empty: they do not say, and are the same whenever they are made.
variable "SOURCE" { default = "" }
variable "REVISION" { default = "" }
variable "CREATED" { default = "" }

# Comma-separated. Empty: the builder's own. Both: docker buildx bake release (needs a builder with emulation or nodes
# of both kinds: runc is built with C).
variable "PLATFORMS" { default = "" }

group "default" {
  targets = ["gateway", "agent"]
}

# What runs where the real stores cannot be pulled.
group "standins" {
  targets = ["s3", "db", "logs", "registry"]
}

group "release" {
  targets = ["gateway-release", "agent-release", "dind-release"]
}

target "common" {
  context    = "."
  dockerfile = "docker/Dockerfile"
  platforms  = PLATFORMS == "" ? null : split(",", PLATFORMS)
  args = {
    BIN_SOURCE = BIN_SOURCE
    VERSION    = VERSION
    GOPROXY    = GOPROXY
    GOSUMDB    = GOSUMDB
    GONOSUMDB  = GONOSUMDB
    GOPRIVATE  = GOPRIVATE
    DEBIAN_IMAGE = DEBIAN_IMAGE == "" ? null : DEBIAN_IMAGE
    GO_IMAGE     = GO_IMAGE == "" ? null : GO_IMAGE
  }
  labels = {
    "org.opencontainers.image.source"   = SOURCE == "" ? null : SOURCE
    "org.opencontainers.image.revision" = REVISION == "" ? null : REVISION
    "org.opencontainers.image.created"  = CREATED == "" ? null : CREATED
  }
  secret = CA_FILE == "" ? [] : ["id=ca,src=${CA_FILE}"]
}

target "gateway" {
  inherits = ["common"]
  target   = "gateway"
  tags     = ["${IMAGE_PREFIX}/gateway:${VERSION}"]
}

target "agent" {
  inherits = ["common"]
  target   = "agent"
  tags     = ["${IMAGE_PREFIX}/agent:${VERSION}"]
}

target "dind" {
  inherits = ["common"]
  target   = "dind"
  tags     = ["${IMAGE_PREFIX}/dind:${VERSION}"]
}

target "multi" {
  platforms = ["linux/amd64", "linux/arm64"]
  # What is in the images, and how they were made, beside them in the registry.
  attest = ["type=provenance,mode=max", "type=sbom"]
}

target "gateway-release" {
  inherits = ["gateway", "multi"]
}

target "agent-release" {
  inherits = ["agent", "multi"]
}

target "dind-release" {
  inherits = ["dind", "multi"]
}

target "s3" {
  inherits = ["common"]
  target   = "s3"
  tags     = ["${IMAGE_PREFIX}/standin-s3:${VERSION}"]
}

target "db" {
  inherits = ["common"]
  target   = "db"
  tags     = ["${IMAGE_PREFIX}/standin-db:${VERSION}"]
}

target "logs" {
  inherits = ["common"]
  target   = "logs"
  tags     = ["${IMAGE_PREFIX}/standin-logs:${VERSION}"]
}

target "registry" {
  inherits = ["common"]
  target   = "registry"
  tags     = ["${IMAGE_PREFIX}/standin-registry:${VERSION}"]
}
