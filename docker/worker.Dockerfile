# One Celery worker.
#
#   docker build --file docker/worker.Dockerfile --tag prichexy-worker:0.1.0-cpu .
#   docker build --file docker/worker.Dockerfile --build-arg DEVICE=cuda \
#                --tag prichexy-worker:0.1.0-cuda .
#
# PyPI's torch for Linux brings CUDA along, so both stand on the same base; a machine with a GPU
# needs NVIDIA's driver and container toolkit, nothing else. The packages come from the same scripts
# and lists as those of the native set-up. Only the forms that script/images can rehearse are used
# here.
FROM debian:bookworm-slim

LABEL org.opencontainers.image.title="PriCheXy gateway: worker" \
      org.opencontainers.image.licenses="Apache-2.0"

# User and group 10001 exist in every image of the gateway and nowhere else.
RUN groupadd --gid 10001 prichexy \
    && useradd --uid 10001 --gid 10001 --home-dir /nonexistent --no-create-home \
               --shell /usr/sbin/nologin prichexy

WORKDIR /opt/prichexy/source
COPY script/install script/install
COPY requirements/ requirements/
RUN script/install system worker && rm -rf /var/lib/apt/lists/*

# cpu or cuda.
ARG DEVICE=cpu
# Where torch's CPU builds are; empty when pip's own configuration names such a place.
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# Dependencies before the code: a change of the code does not install them again.
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
COPY setup.cfg pyproject.toml ./
COPY worker/prichexy_worker/contract/__init__.py worker/prichexy_worker/contract/__init__.py
RUN case "$DEVICE" in \
        cpu) arguments="${TORCH_CPU_INDEX:+--extra-index-url $TORCH_CPU_INDEX}" ;; \
        cuda) arguments= ;; \
        *) echo "DEVICE must be cpu or cuda" >&2; exit 1 ;; \
    esac \
    && PRICHEXY_TORCH_PIP_ARGS="$arguments" \
       script/install python worker /opt/prichexy/venv --dependencies-only \
    && /opt/prichexy/venv/bin/python -c \
       'import sys, torch; sys.exit((torch.version.cuda is not None) != (sys.argv[1] == "cuda"))' \
       "$DEVICE"

COPY LICENSE README.md ./
COPY gateway/ gateway/
COPY model/prichexy_model/ model/prichexy_model/
COPY model/prichexy_store/ model/prichexy_store/
COPY plugin/prichexy_plugin/ plugin/prichexy_plugin/
COPY train/prichexy_train/ train/prichexy_train/
COPY worker/ worker/
RUN script/install python worker /opt/prichexy/venv

COPY model/bundle/ /opt/prichexy/bundle/
COPY --chmod=755 docker/worker-entrypoint docker/worker-healthcheck /usr/local/bin/

# "auto" takes a GPU when there is one.
ENV PRICHEXY_WORKER_MODEL__BUNDLE=/opt/prichexy/bundle \
    PRICHEXY_WORKER_MODEL__DEVICE=auto \
    HOME=/tmp

WORKDIR /tmp
USER 10001:10001
# The native libraries and the release gate's dciodvfy must run as this user, before anything is
# deployed.
RUN ["/opt/prichexy/venv/bin/python", "-c", \
     "import cv2, monai, prichexy_worker.gate as gate, rapidocr, torch; gate.installed()"]
HEALTHCHECK --interval=30s --timeout=20s --start-period=120s --retries=3 \
    CMD ["/opt/prichexy/venv/bin/python", "/usr/local/bin/worker-healthcheck"]
ENTRYPOINT ["/usr/local/bin/worker-entrypoint"]
