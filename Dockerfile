# The server, the command line and the example participants, without PostgreSQL.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY proto proto
COPY server server
COPY participants participants
COPY clients clients
RUN python -m venv --without-pip /opt/sagad \
    && pip --python /opt/sagad/bin/python install --no-cache-dir --only-binary :all: --constraint constraints.txt \
       '.[server,kafka,redis,mongo,participant]'

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin sagad
COPY --from=build /opt/sagad /opt/sagad
# A container has a network of its own: here alone sagad listens on all addresses.
ENV PATH=/opt/sagad/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SAGAD_GRPC__ADDRESS=0.0.0.0:7400 \
    SAGAD_HTTP__ADDRESS=0.0.0.0:7401
USER sagad
EXPOSE 7400 7401
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --start-interval=2s --retries=3 \
    CMD ["sagactl", "health", "--server", "127.0.0.1:7400", "--call-timeout", "8s"]
ENTRYPOINT ["sagad"]
CMD ["serve"]
