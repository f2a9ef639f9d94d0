# The embedded registry as a container: `docker run -v adapters:/data IMAGE push …`
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY cli cli
COPY migrations migrations
RUN pip wheel --no-cache-dir --wheel-dir /wheels .

FROM python:3.13-slim
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --no-index --find-links /wheels adapter-registry && rm -r /wheels \
    && useradd --create-home --uid 10001 adapters && mkdir /data && chown adapters /data
USER adapters
ENV ADAPTERS_REGISTRY=/data
VOLUME /data
ENTRYPOINT ["adapters"]
CMD ["--help"]
