# pops serve on a CPU. For CUDA: drop --index-url below (PyPI's torch has CUDA), run with `--gpus all`.
FROM node:22-slim AS page
WORKDIR /app/studio
COPY studio ./
RUN npm ci && POPS_WEB=/web npm run build

FROM python:3.12-slim
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
RUN useradd --create-home --uid 1000 pops && mkdir /data && chown pops /data
WORKDIR /app
COPY pyproject.toml hatch_build.py README.md LICENSE constraints.txt ./
COPY src ./src
COPY --from=page /web ./src/pops/server/web
COPY examples ./examples
RUN pip install --index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch \
 && pip install -c constraints.txt '.[server,controls,heif,int8]'
USER pops
VOLUME /data
EXPOSE 7860
# POPS_TOKEN must be set: the server listens beyond its own machine.
HEALTHCHECK --interval=30s --timeout=40s --start-period=120s CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:7860/api/v1/health', headers={'authorization': 'Bearer ' + os.environ['POPS_TOKEN']}))"]
ENTRYPOINT ["pops", "serve", "--host", "0.0.0.0", "--data", "/data", "--examples", "/app/examples"]
