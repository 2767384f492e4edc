# `facerwkv serve` on a CPU, as nobody, without a file that it may change: docs/how-to/serve.md says how to run it.
FROM python:3.12-slim AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir "uv>=0.8,<1"
COPY . /source
ENV UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
RUN uv venv /opt/facerwkv \
    && uv pip install --python /opt/facerwkv --torch-backend cpu --constraint /source/constraints.txt "/source[serve]"

FROM python:3.12-slim
COPY --from=build /opt/facerwkv /opt/facerwkv
ENV PATH=/opt/facerwkv/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
ENTRYPOINT ["facerwkv", "serve", "--host", "0.0.0.0", "--port", "8000"]
