# An image with ireu for CPUs. Build it from a checkout: docker build -t ireu-local .
# The photos, the encoder and the run folder come in as a volume:
#   docker run --rm --user "$(id -u):$(id -g)" --network none -v "$PWD:/work" ireu-local locate
FROM python:3.11-slim-bookworm AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim-bookworm
# What opencv loads.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
# First, from the index that has it without CUDA, which would be gigabytes.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0
# The name of ireu on an index need not be this project, so it comes from the stage above.
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl && rm -rf /wheels
# Whoever runs it without --user is nobody in particular.
RUN useradd --create-home --uid 10001 ireu
ENV HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /work
ENTRYPOINT ["ireu"]
CMD ["--help"]
