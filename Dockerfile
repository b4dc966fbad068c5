# finetrace with everything it needs, and a copy of the project. How to build and run it: docs/container.md
#
#   docker build -t finetrace .                                     torch for CPUs
#   docker build -t finetrace:cuda --build-arg TORCH_INDEX= .       torch from PyPI: CUDA, which it brings itself
#   docker build -t finetrace-server --target server .              MLflow over PostgreSQL, with passwords (compose.yaml)

# Any Debian-like image whose python3 is 3.11 or newer and can make virtual environments.
ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE} AS study

# git: DVC works on checkouts that are mounted here. tini: passes signals on to training and reaps its workers.
RUN if ! command -v git > /dev/null || ! command -v tini > /dev/null; then \
      apt-get update -q && apt-get install -qy --no-install-recommends ca-certificates git tini && rm -rf /var/lib/apt/lists/*; \
    fi

ENV PROJECT=/home/finetrace/project
# The home folder is open to all so that `--user` may name any number; the project folder takes the ownership of what is mounted on it.
RUN useradd --uid 1000 --non-unique --create-home finetrace \
    && mkdir -p "$PROJECT" && chown finetrace:finetrace "$PROJECT" && chmod 1777 /home/finetrace "$PROJECT" \
    && git config --system --add safe.directory "$PROJECT"

# An empty TORCH_INDEX leaves torch to PyPI. `--no-deps`, because the lock pins what torch needs, for every build of it.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.lock /tmp/requirements.lock
RUN python3 -m venv /opt/venv \
    && if [ -n "$TORCH_INDEX" ]; then \
         /opt/venv/bin/pip install -q --no-cache-dir --no-deps --index-url "$TORCH_INDEX" "$(grep '^torch==' /tmp/requirements.lock)"; \
       fi \
    && /opt/venv/bin/pip install -q --no-cache-dir -r /tmp/requirements.lock \
    && rm /tmp/requirements.lock

# Caches lie inside the project folder, so that one volume holds everything that is worth keeping.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/home/finetrace \
    USER=finetrace \
    XDG_CACHE_HOME=$PROJECT/.finetrace/cache \
    HF_HOME=$PROJECT/.finetrace/huggingface \
    DVC_SITE_CACHE_DIR=$PROJECT/.finetrace/dvc \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    DO_NOT_TRACK=1 \
    TOKENIZERS_PARALLELISM=false

# The package is imported from the project folder: the code that runs is the code that DVC hashes. The entry point fills that folder
# from /opt/finetrace when it is empty; `.image` tells it which image filled it.
COPY . /opt/finetrace
RUN chmod -R a+rX /opt/finetrace && chmod a+x /opt/finetrace/docker/entrypoint.sh \
    && cp -R /opt/finetrace/. "$PROJECT" \
    && /opt/venv/bin/pip install -q --no-cache-dir --no-deps --no-build-isolation -e "$PROJECT" \
    && find "$PROJECT" -mindepth 1 -delete \
    && cd /opt/finetrace && find . -type f | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum | cut -c 1-16 > /tmp/.image \
    && mv /tmp/.image .image

USER finetrace
WORKDIR $PROJECT
VOLUME $PROJECT
EXPOSE 5000
# What Ctrl-C sends: a training keeps its last whole state, and the next run goes on from there.
STOPSIGNAL SIGINT
ENTRYPOINT ["tini", "-s", "-g", "--", "/opt/finetrace/docker/entrypoint.sh"]
CMD ["study"]

FROM study AS server
# The versions beside those of the lock are fixed here: they are no part of a study's environment.
RUN /opt/venv/bin/pip install -q --no-cache-dir --no-deps psycopg2-binary==2.9.13 Flask-WTF==1.3.0 WTForms==3.2.1

# What `docker build .` makes.
FROM study
