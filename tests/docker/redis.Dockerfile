# Stands in for the official Redis image, which cannot be pulled without an engine: the same major
# version, the same user id, the same data folder. script/images starts compose.yaml's Redis in it.
FROM debian:trixie-slim
WORKDIR /source
COPY script/install script/install
COPY requirements/ requirements/
RUN script/install system redis && rm -rf /var/lib/apt/lists/*
RUN install --directory --owner=999 --group=999 /data
WORKDIR /data
