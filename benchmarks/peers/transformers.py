"""Hugging Face transformers: GPT2LMHeadModel.generate, with PyTorch's fused attention."""

from typing import Any

from benchmarks.peers import Job


class Transformers:
    """See Engine."""

    def __init__(self, job: Job) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(job.threads)
        kind, _, cache = job.of.variant.partition("-")
        self._device = torch.device(job.device)
        self._model = AutoModelForCausalLM.from_pretrained(
            job.source, dtype=getattr(torch, kind), attn_implementation="sdpa"
        )
        self._model = self._model.to(self._device).eval()
        config = self._model.generation_config
        config.eos_token_id, config.pad_token_id, config.do_sample, config.num_beams = None, 0, False, 1
        self._options = {"cache_implementation": "static"} if cache == "static" else {}

    def generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        """See Engine."""
        import torch

        ids = torch.tensor(prompts, device=self._device)
        mask = torch.ones_like(ids)
        out = self._model.generate(ids, attention_mask=mask, max_new_tokens=n_new, use_cache=True, **self._options)
        return out[:, ids.shape[1] :].tolist()

    def about(self) -> dict[str, Any]:
        """See Engine."""
        import torch
        import transformers

        return {"version": transformers.__version__, "torch": str(torch.__version__)}


load = Transformers
