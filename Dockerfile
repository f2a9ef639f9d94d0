# Two images of one source.
#   docker build --target server .      look-ups, uploads, the Hub's protocol; no torch
#   docker build --target workshop .    the same, and merge, combine, extract on tensors
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY cli cli
COPY migrations migrations
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim AS base
RUN useradd --create-home --uid 10001 adapters && mkdir /data && chown adapters /data
ENV ADAPTERS_REGISTRY=/data PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
VOLUME /data
ENTRYPOINT ["adapters"]

FROM base AS workshop
RUN --mount=from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir "$(echo /wheels/*.whl)[tensors,hub,search,plot,server]"
USER adapters
CMD ["--help"]

FROM base AS server
RUN --mount=from=build,source=/wheels,target=/wheels pip install --no-cache-dir "$(echo /wheels/*.whl)[server]"
USER adapters
EXPOSE 8000
# Only /data is written: run it with a read-only root and a tmpfs on /tmp.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
