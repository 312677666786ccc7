# Orthanc, as ingest (with the PriCheXy plugin, the default) or as export (PRICHEXY_ORTHANC=export).
#
#   docker build --file docker/orthanc.Dockerfile --tag prichexy-orthanc:0.1.0 .
#
# The packages come from the same scripts and lists as those of the native set-up. Only the forms
# that script/images can rehearse are used here.
FROM debian:trixie-slim

LABEL org.opencontainers.image.title="PriCheXy gateway: Orthanc" \
      org.opencontainers.image.licenses="Apache-2.0"

# User and group 10001 exist in every image of the gateway and nowhere else; they own the data.
RUN groupadd --gid 10001 prichexy \
    && useradd --uid 10001 --gid 10001 --home-dir /nonexistent --no-create-home \
               --shell /usr/sbin/nologin prichexy \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/prichexy

WORKDIR /opt/prichexy/source
COPY script/install script/install
COPY requirements/ requirements/
RUN script/install system orthanc && rm -rf /var/lib/apt/lists/*

# Dependencies before the code: a change of the code does not install them again.
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
COPY setup.cfg pyproject.toml ./
COPY worker/prichexy_worker/contract/__init__.py worker/prichexy_worker/contract/__init__.py
RUN script/install python plugin /opt/prichexy/venv --dependencies-only

COPY LICENSE README.md ./
COPY gateway/ gateway/
COPY model/prichexy_model/ model/prichexy_model/
COPY model/prichexy_store/ model/prichexy_store/
COPY plugin/prichexy_plugin/ plugin/prichexy_plugin/
COPY train/prichexy_train/ train/prichexy_train/
COPY worker/ worker/
RUN script/install python plugin /opt/prichexy/venv

# Orthanc puts the script's folder first in its search path: nothing else may lie there.
COPY plugin/prichexy_orthanc.py /opt/prichexy/plugin/
COPY orthanc-config/ /etc/prichexy/
COPY docker/secrets.sh /opt/prichexy/
COPY --chmod=755 docker/orthanc-entrypoint docker/orthanc-healthcheck /usr/local/bin/

# Orthanc listens on all of the container's interfaces; which of them are reached from outside is
# decided by the container's networks and published ports.
ENV PRICHEXY_ORTHANC=ingest \
    PRICHEXY_REMOTE_ACCESS=true \
    PRICHEXY_STORAGE=/var/lib/prichexy \
    PRICHEXY_PLUGIN_SCRIPT=/opt/prichexy/plugin/prichexy_orthanc.py \
    PRICHEXY_INGEST_HTTP_PORT=8042 \
    PRICHEXY_INGEST_DICOM_PORT=4242 \
    PRICHEXY_EXPORT_HTTP_PORT=8043 \
    PRICHEXY_EXPORT_DICOM_PORT=4243 \
    HOME=/tmp

WORKDIR /var/lib/prichexy
USER 10001:10001
EXPOSE 8042 4242 8043 4243
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=4 \
    CMD ["/opt/prichexy/venv/bin/python", "/usr/local/bin/orthanc-healthcheck"]
ENTRYPOINT ["/usr/local/bin/orthanc-entrypoint"]
