# syntax=docker/dockerfile:1
# Training and the other batch jobs, under torchrun where there are several processes. Build as facade.Dockerfile.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python3 -m venv /opt/saaa
COPY build/images/trainer.txt requirements.txt
RUN --mount=type=bind,source=build/images/wheels,target=/wheels \
    /opt/saaa/bin/python -m pip install --no-index --find-links /wheels --require-hashes --no-deps -r requirements.txt
COPY build/images/saaa-*.whl ./
RUN /opt/saaa/bin/python -m pip install --no-deps --no-index ./saaa-*.whl \
 && /opt/saaa/bin/python -m pip uninstall --yes pip

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="saaa trainer" \
      org.opencontainers.image.description="Explainable image understanding as a service: training" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/saaa /opt/saaa
ENV PATH=/opt/saaa/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp TMPDIR=/tmp OMP_WAIT_POLICY=passive
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["saaa-train"]
CMD ["--help"]
