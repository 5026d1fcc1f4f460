# syntax=docker/dockerfile:1
# The facade and the client's commands, without torch. `make image-facade` exports the lock, fetches its wheels and builds
# from the root of the checkout. BASE is any image of Debian bookworm with Python 3.11 and its venv module.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python3 -m venv /opt/saaa
# What the lock file pins for these extras, and nothing else, with digests; there is no network.
COPY build/images/facade.txt requirements.txt
RUN --mount=type=bind,source=build/images/wheels,target=/wheels \
    /opt/saaa/bin/python -m pip install --no-index --find-links /wheels --require-hashes --no-deps -r requirements.txt
COPY build/images/saaa-*.whl ./
# pip makes the byte code, which nobody can write later; packages' own tests are left out.
RUN /opt/saaa/bin/python -m pip install --no-deps --no-index ./saaa-*.whl \
 && /opt/saaa/bin/python -m pip uninstall --yes setuptools pip \
 && find /opt/saaa/lib -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && find /opt/saaa/lib -name "*.pyi" -delete

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="saaa facade" \
      org.opencontainers.image.description="Explainable image understanding as a service: the gRPC facade" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/saaa /opt/saaa
ENV PATH=/opt/saaa/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
# Nobody's files: the root file system is read-only, and /tmp is mounted.
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 50052 9100
ENTRYPOINT ["saaa"]
CMD ["--help"]
