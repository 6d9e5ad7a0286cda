"""This project's back end alone: forwards over segments, without requests, messages or sampling."""

from pathlib import Path
from typing import Any

from benchmarks.peers import Job

_CHUNK = 512  # prompt tokens of a forward
_FORMATS = {
    "float32": ("float32", "none"),
    "bfloat16": ("bfloat16", "none"),
    "int8": ("float32", "int8"),
    "int4": ("float32", "int4"),
}


class Bare:
    """See Engine."""

    def __init__(self, job: Job) -> None:
        import torch

        from model.backend import BackendSpec, load_backend

        torch.set_num_threads(job.threads)
        dtype, quantize = _FORMATS[job.of.variant]
        self.backend = load_backend(
            BackendSpec(
                model=Path(job.source), dtype=dtype, quantize=quantize, device=job.device, threads=job.threads,
                max_slots=max(job.streams), context=job.context, backend=job.backend,
            )
        )  # fmt: skip

    def generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        """See Engine."""
        import torch

        with torch.inference_mode():
            return self._generate(prompts, n_new)

    def _generate(self, prompts: list[list[int]], n_new: int) -> list[list[int]]:
        import torch

        from model.backend import Segment

        backend = self.backend
        answers: list[list[int]] = []
        for slot, prompt in enumerate(prompts):
            for start in range(0, len(prompt), _CHUNK):
                piece = prompt[start : start + _CHUNK]
                last = start + len(piece) == len(prompt)
                hidden = backend.forward([Segment(slot, start, piece, outputs=int(last))])
            answers.append([int(backend.logits(hidden)[0].argmax())])
        for step in range(1, n_new):
            segments = [
                Segment(slot, len(prompt) + step - 1, [answers[slot][-1]]) for slot, prompt in enumerate(prompts)
            ]
            chosen = torch.argmax(backend.logits(backend.forward(segments)), dim=-1).tolist()
            for answer, token in zip(answers, chosen, strict=True):
                answer.append(token)
        return answers

    def about(self) -> dict[str, Any]:
        """See Engine."""
        backend = self.backend
        return {"kernels": backend.kernels, "dtype": backend.dtype, "quantize": backend.quantize}

    def close(self) -> None:
        """Free what it holds."""
        self.backend.close()


load = Bare
