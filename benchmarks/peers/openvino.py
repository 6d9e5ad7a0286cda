"""OpenVINO GenAI: its continuous batching over a paged cache, prefix caching off; weights by optimum-intel and NNCF."""

import shutil
from pathlib import Path
from typing import Any

from benchmarks.peers import Job

_HINTS = {
    "float32": {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"},
    "bfloat16": {"INFERENCE_PRECISION_HINT": "bf16", "KV_CACHE_PRECISION": "bf16"},
    "int8": {},  # its own choices: bfloat16 where the processor has it, activations and cache in 8 bits
}


class OpenVino:
    """See Engine."""

    def __init__(self, job: Job) -> None:
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.cache_size = 2  # GB
        scheduler.max_num_batched_tokens = 4096
        scheduler.max_num_seqs = max(job.streams)
        options = {"INFERENCE_NUM_THREADS": job.threads, "scheduler_config": scheduler, **_HINTS[job.of.variant]}
        self._pipeline = openvino_genai.LLMPipeline(str(job.artifact), "CPU", **options)

    def generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        """See Engine."""
        import numpy as np
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = n_new, True, False
        ids = np.array(prompts, dtype=np.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        return [list(tokens) for tokens in self._pipeline.generate(inputs, config).tokens]

    def about(self) -> dict[str, Any]:
        """See Engine."""
        import openvino_genai

        return {"version": openvino_genai.__version__}


def prepare(job: Job) -> None:
    """Export the model to `job.artifact`; for int8, compress its weights, symmetric, a scale for each output."""
    from optimum.intel import OVModelForCausalLM

    partial = job.artifact.with_name(job.artifact.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    model = OVModelForCausalLM.from_pretrained(job.source, export=True, compile=False, load_in_8bit=False)
    model.save_pretrained(partial)
    if job.of.variant == "int8":
        _compress(partial)
    partial.rename(job.artifact)


def _compress(directory: Path) -> None:
    import nncf
    import openvino

    path = directory / "openvino_model.xml"
    model = openvino.Core().read_model(path)
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    written = directory / "compressed.xml"
    openvino.save_model(model, written, compress_to_fp16=False)
    for suffix in (".xml", ".bin"):
        written.with_suffix(suffix).replace(path.with_suffix(suffix))


load = OpenVino
