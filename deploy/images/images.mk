# The images: with a container engine (BuildKit: Docker 23 or later, Podman, Buildah), or without one. docs/image.md says more.
.PHONY: docker-build-agent docker-push-agent docker-build-operator docker-push-operator docker-build-placeholder docker-push-placeholder image-roots image-bill

include deploy/images/versions.env

CONTAINER_TOOL ?= docker
PLATFORM ?= linux/amd64
IMAGE ?= agent
BILL ?= licenses.txt
# What `make image-roots` puts the placeholder upon: the archive of an image, a root directory, or an archive of one.
PLACEHOLDER_BASE ?= .cache/workload-base.tar

IMAGE_VERSION := $(shell sed -n 's/^  "version": "\(.*\)",$$/\1/p' package.json)
AGENT_NAME = $(or $(IMG),snapshot-agent:$(IMAGE_VERSION))
OPERATOR_NAME = $(or $(OPERATOR_IMG),snapshot-operator:$(IMAGE_VERSION))
PLACEHOLDER_NAME = $(or $(PLACEHOLDER_IMG),snapshot-placeholder:$(IMAGE_VERSION))
LABEL := --label org.opencontainers.image
CREATED = $(LABEL).created=$(shell date -u +%Y-%m-%dT%H:%M:%SZ)
REVISION = $(addprefix $(LABEL).revision=,$(shell git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null))
# Each argument only where it is set.
GIVEN = $(foreach name,MIRROR CRIU_REPO CRIU_REF,$(if $($(name)),--build-arg '$(name)=$($(name))'))
BUILD_IMAGE = DOCKER_BUILDKIT=1 $(CONTAINER_TOOL) build --platform '$(PLATFORM)' --build-arg 'BASE=$(BASE_IMG)$(addprefix @,$(BASE_DIGEST))' $(GIVEN)
need = $(if $($(1)),,$(error $@: say $(2) with $(1)=$(3)))

docker-build-agent: ## Builds the agent's image: IMG=name:tag; CRIU_REPO=, CRIU_REF= for CRIU from its sources
	$(BUILD_IMAGE) $(REVISION) $(CREATED) -f deploy/images/agent/Dockerfile -t '$(AGENT_NAME)' .

docker-push-agent: ## Pushes the agent's image: IMG=registry/name:tag
	$(call need,IMG,which image is to be pushed,registry/name:tag)$(CONTAINER_TOOL) push '$(IMG)'

docker-build-operator: ## Builds the operator's image: OPERATOR_IMG=name:tag
	$(BUILD_IMAGE) $(REVISION) $(CREATED) -f deploy/images/operator/Dockerfile -t '$(OPERATOR_NAME)' .

docker-push-operator: ## Pushes the operator's image: OPERATOR_IMG=registry/name:tag
	$(call need,OPERATOR_IMG,which image is to be pushed,registry/name:tag)$(CONTAINER_TOOL) push '$(OPERATOR_IMG)'

docker-build-placeholder: ## Builds a placeholder image: PLACEHOLDER_BASE_IMG= the workload's image, PLACEHOLDER_IMG=name:tag
	$(call need,PLACEHOLDER_BASE_IMG,which image the workload has today,registry/workload:tag)
	$(call need,PLACEHOLDER_IMG,what the placeholder image is to be called,registry/placeholder:tag)
	$(if $(CRIU_REPO)$(CRIU_REF),@echo 'NOTE: CRIU_REPO and CRIU_REF change nothing here: a placeholder carries no CRIU. The agent does: make docker-build-agent')
	$(BUILD_IMAGE) --build-arg 'PLACEHOLDER_BASE_IMG=$(PLACEHOLDER_BASE_IMG)' $(CREATED) -f deploy/images/placeholder/Dockerfile -t '$(PLACEHOLDER_IMG)' .

docker-push-placeholder: ## Pushes a placeholder image: PLACEHOLDER_IMG=registry/name:tag
	$(call need,PLACEHOLDER_IMG,which image is to be pushed,registry/placeholder:tag)$(CONTAINER_TOOL) push '$(PLACEHOLDER_IMG)'

image-roots: setup build ## Makes all images without a container engine: .cache/images/*.tar; PLACEHOLDER_BASE= image archive or root directory
	deploy/images/make-image.sh agent '$(AGENT_NAME)' .cache/images/agent.tar .cache/agent-root
	deploy/images/make-image.sh operator '$(OPERATOR_NAME)' .cache/images/operator.tar .cache/operator-root
	deploy/images/make-image.sh placeholder '$(PLACEHOLDER_NAME)' .cache/images/placeholder.tar '$(PLACEHOLDER_BASE)'

image-bill: build ## Prints what is in an image and its licences: IMAGE=agent, operator or placeholder, BILL=licenses.txt or bom.json
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && \
	$(if $(wildcard deploy/images/$(IMAGE)/packages.txt),deploy/images/make-root.sh 'deploy/images/$(IMAGE)/packages.txt' '.cache/$(IMAGE)-root' >&2 &&) \
	deploy/images/lay-out.sh '$(IMAGE)' . "$$work/added" $(if $(wildcard deploy/images/$(IMAGE)/packages.txt),'.cache/$(IMAGE)-root') && \
	cat "$$work/added/usr/share/snapshot/$(BILL)"
