# One image for every Keyturn process; compose.yaml says which one a container runs.

FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements/wheel.txt requirements/
RUN pip install --no-cache-dir --require-hashes --requirement requirements/wheel.txt
COPY pyproject.toml LICENSE README.md ./
COPY keyturn keyturn
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

FROM python:3.13-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 KEYTURN_CONFIG=/keyturn/keyturn.toml \
    KEYTURN_STATE__DIRECTORY=/var/lib/keyturn
COPY requirements/services.txt /tmp/
RUN pip install --no-cache-dir --require-hashes --requirement /tmp/services.txt && rm /tmp/services.txt
RUN --mount=type=bind,from=build,source=/wheel,target=/wheel pip install --no-cache-dir --no-deps --no-index /wheel/*.whl

# 999 is the user of the Valkey image too, which reads the access list that `init` wrote.
RUN groupadd --gid 999 keyturn && useradd --uid 999 --gid 999 --no-create-home --home-dir /nonexistent keyturn \
    && install --directory --owner=999 --group=999 --mode=0700 /keyturn /var/lib/keyturn \
    && install --directory --owner=999 --group=999 --mode=0750 /run/keyturn

# The services are plain folders; `python -m NAME` finds them here.
WORKDIR /services
COPY serving serving
COPY authorization authorization
COPY keyservice keyservice
COPY introspection introspection
COPY revocation revocation
COPY worker worker
USER 999:999
