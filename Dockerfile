# The harness with CUDA and vLLM, and from the same file without either (VARIANT=cpu). `make image` and
# `make image-cpu` build them; `make image TRL=1.14.2` builds one for another release.
# Needs BuildKit: the default since Docker 23, DOCKER_BUILDKIT=1 before.

# To pin it, put the digest after the tag (…-ubuntu24.04@sha256:…); it is the first line that starts with
# "Digest:" of: docker buildx imagetools inspect nvidia/cuda:13.0.3-base-ubuntu24.04
# torch brings CUDA's libraries in its wheels, so the smallest of NVIDIA's images does.
ARG BASE_IMAGE=nvidia/cuda:13.0.3-base-ubuntu24.04
ARG VARIANT=cuda

# ---- What runs need of the system, installed where the base lacks it: for the CPU Python alone …
FROM ${BASE_IMAGE} AS system-cpu
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
    || { apt-get update && apt-get install -y --no-install-recommends python3 python3-venv; }

# … and with CUDA a compiler and Python's headers: Triton compiles its launcher when a kernel first runs.
FROM ${BASE_IMAGE} AS system-cuda
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    { command -v gcc && command -v g++ \
      && python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
      && python3 -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h")'; } >/dev/null 2>&1 \
    || { apt-get update && apt-get install -y --no-install-recommends \
      g++ gcc libc6-dev python3 python3-dev python3-venv; }

# hadolint ignore=DL3006 # it is one of the two above
FROM system-${VARIANT} AS system

# ---- The virtual environment, empty, and what the build needs: pip as locked, and a compiler for the
# packages that come as source (pycosat). Builds without a network: put their wheels into wheels/ too.
FROM system AS tools
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_FIND_LINKS=/wheels
RUN --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    --mount=type=cache,target=/var/cache/apt,sharing=locked \
    { command -v gcc \
      && python3 -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h")'; } >/dev/null 2>&1 \
    || { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev; }
RUN --mount=type=bind,source=constraints.txt,target=/constraints.txt \
    --mount=type=bind,source=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/harness \
    && /opt/harness/bin/pip install --quiet --constraint /constraints.txt pip \
    && python3 -m venv /opt/hatch \
    && /opt/hatch/bin/pip install --quiet --constraint /constraints.txt hatchling

# ---- What to install: as locked, then as asked. Refuses what can't be built before gigabytes are fetched.
FROM tools AS pins
ARG VARIANT
ARG VLLM=""
WORKDIR /build
COPY harness/__init__.py harness/errors.py harness/releases.py harness/pins.py harness/
# torch's CPU build is asked for by name: an index without it must not answer with CUDA's.
RUN --mount=type=bind,source=constraints.txt,target=constraints.txt \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m harness.pins /pins/locked --variant "${VARIANT}" --vllm "${VLLM}" \
    && { [ "${VARIANT}" != cpu ] \
      || /opt/harness/bin/pip install --quiet --dry-run --no-deps --requirement /pins/locked/torch.txt \
      || { echo "torch's CPU build ($(cat /pins/locked/torch.txt)) was not found for $(python3 --version):" \
        "set TORCH_CPU_INDEX to the address of PyTorch's index of CPU wheels, or put that wheel into the" \
        "folder wheels/, and run \`make image-cpu\` again." >&2; exit 1; }; }
ARG TRL=""
ARG TRANSFORMERS=""
ARG PEFT=""
# The lock is known to resolve; other versions are tried here, from metadata alone.
# The last stage reads the index from a file: a build argument there would stay in the image's history.
RUN --mount=type=bind,source=constraints.txt,target=constraints.txt \
    --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
    --mount=type=bind,source=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    python3 -m harness.pins /pins/asked --variant "${VARIANT}" \
      --trl "${TRL}" --transformers "${TRANSFORMERS}" --peft "${PEFT}" --vllm "${VLLM}" \
    && { [ -z "${TRL}${TRANSFORMERS}${PEFT}${VLLM}" ] || /opt/harness/bin/pip install --dry-run \
      --constraint /pins/asked/constraints.txt --requirement /pins/asked/requirements.txt; } \
    && printf '[global]\nindex-url = %s\nextra-index-url = %s\n' \
      "${PIP_INDEX_URL}" "${PIP_EXTRA_INDEX_URL}" > /pins/asked/pip.conf

# ---- Everything but the few packages that differ between images (harness/pins.py, MOVING): a layer that
# images for several releases of TRL share. It is made again when a pin changes, not when source does.
FROM tools AS foundation
ARG VARIANT
# Compiled here, as nobody can write beside a module in a read-only container. Packages ship some files for
# newer Pythons, which can't be compiled: no error.
RUN --mount=type=bind,from=pins,source=/pins/locked,target=/pins \
    --mount=type=bind,source=wheels,target=/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    /opt/harness/bin/pip install --quiet --no-compile \
      --constraint /pins/constraints.txt --requirement /pins/requirements.txt \
    && /opt/harness/bin/pip uninstall --quiet --yes --requirement /pins/moving.txt \
    && { /opt/harness/bin/python -m compileall -qq -j 0 --invalidation-mode unchecked-hash /opt/harness/lib \
      || true; }

# ---- The harness itself, laid out to be copied over the virtual environment.
FROM tools AS package
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY benchmarks benchmarks
COPY harness harness
RUN /opt/hatch/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/harness/bin/pip install --quiet --no-compile --no-deps --no-index --find-links /tmp/wheel \
      --prefix /package lora-harness \
    && python3 -m compileall -q --invalidation-mode unchecked-hash -s /package -p /opt/harness /package

# ---- The image.
FROM system AS image
# Ubuntu's images come with a user 1000.
RUN if id 1000 >/dev/null 2>&1; then userdel --remove "$(id --user --name 1000)"; fi \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /tmp/home --shell /usr/sbin/nologin harness \
    # Any user may run it (compose: HARNESS_USER), and a new volume takes over the mode of its mount point.
    && mkdir -p /work/results /cache/huggingface /cache/harness /cache/triton /cache/inductor /cache/vllm \
      /cache/xdg \
    && chmod -R 1777 /cache /work/results
COPY --from=foundation /opt/harness /opt/harness
RUN --mount=type=bind,from=pins,source=/pins/asked,target=/tmp/pins \
    --mount=type=bind,source=wheels,target=/tmp/wheels \
    --mount=type=cache,target=/root/.cache/pip \
    PIP_CONFIG_FILE=/tmp/pins/pip.conf PIP_FIND_LINKS=/tmp/wheels /opt/harness/bin/pip install --quiet \
      --root-user-action ignore --disable-pip-version-check \
      --constraint /tmp/pins/constraints.txt --requirement /tmp/pins/requirements.txt \
    && /opt/harness/bin/pip check --quiet
COPY --from=package /package /opt/harness

# USER: a user id without a name in the image has one nevertheless, for what asks (torch's compiler).
ENV PATH=/opt/harness/bin:${PATH} \
    HOME=/tmp/home \
    USER=harness \
    HF_HOME=/cache/huggingface \
    HARNESS_CACHE=/cache/harness \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    VLLM_CACHE_ROOT=/cache/vllm \
    XDG_CACHE_HOME=/cache/xdg \
    HARNESS_LOCKS=/cache \
    HF_HUB_DISABLE_TELEMETRY=1 \
    VLLM_NO_USAGE_STATS=1
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["harness"]

ARG BASE_IMAGE
ARG VARIANT
ARG TRL=""
ARG TRANSFORMERS=""
ARG PEFT=""
ARG VLLM=""
ARG VERSION=""
ARG REVISION=""
ARG SOURCE=""
ARG CREATED=""
ENV HARNESS_IMAGE_VARIANT=${VARIANT} HARNESS_REVISION=${REVISION}
# The versions are those asked for; empty means constraints.txt's. `docker run IMAGE env` says what is in.
LABEL org.opencontainers.image.title="lora-harness" \
      org.opencontainers.image.description="Does LoRA match full fine-tuning, at what memory?" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      io.lora-harness.variant="${VARIANT}" \
      io.lora-harness.trl="${TRL}" \
      io.lora-harness.transformers="${TRANSFORMERS}" \
      io.lora-harness.peft="${PEFT}" \
      io.lora-harness.vllm="${VLLM}"
