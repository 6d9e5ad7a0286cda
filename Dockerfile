# The service in a container. COMPUTE=cpu (small) or cuda (PyTorch with its CUDA libraries).
ARG PYTHON_VERSION=3.11

# The kernels, for every instruction set: the image may run on another processor than it is built on. The compiler stays behind.
FROM python:${PYTHON_VERSION}-slim AS kernels
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m pip install --no-cache-dir --disable-pip-version-check "setuptools>=77"
WORKDIR /src
COPY setup.py pyproject.toml ./
COPY model/native model/native
RUN python setup.py build_ext --inplace && ls model/native/*.so

FROM python:${PYTHON_VERSION}-slim

ARG COMPUTE=cpu
ARG TORCH=torch==2.13.0
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# What changes least comes first: PyTorch, then the other libraries, then the code.
RUN case "$COMPUTE" in \
      cpu) python -m pip install --no-deps --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu "$TORCH" ;; \
      cuda) python -m pip install --no-deps "$TORCH" ;; \
      *) echo "COMPUTE must be cpu or cuda, not $COMPUTE" >&2; exit 1 ;; \
    esac
WORKDIR /srv/homegrown
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > /tmp/requirements.txt && python -m pip install -r /tmp/requirements.txt && rm /tmp/requirements.txt
COPY . .
COPY --from=kernels /src/model/native/*.so model/native/
# Editable: the code stays beside checkpoints/, where the bundled models are looked for.
RUN python -m pip install --no-deps --editable . \
    && python -m compileall -q model training app cli \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin homegrown \
    && install -d -o homegrown -g homegrown /models

USER homegrown
# Inside a container only its own network can reach it: which port is published where is the compose file's matter.
ENV HOMEGROWN_HOST=0.0.0.0 HOMEGROWN_PORT=8000 HOMEGROWN_MODELS=/models
VOLUME /models
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"HOMEGROWN_PORT\"]}/health', timeout=4)"]
ENTRYPOINT ["homegrown"]
CMD ["serve"]
